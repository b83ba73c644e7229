"""Commands on a disk that becomes full: one line, and what was there before is as it was."""

import shutil
import subprocess

import pytest

pytestmark = pytest.mark.slow  # a minute


@pytest.fixture
def disk(tmp_path):
    """A function that mounts a disk of so many kB; skips where that is not allowed."""
    place = tmp_path / 'disk'
    place.mkdir()
    mounted = []

    def mount(size):
        command = ['mount', '-t', 'tmpfs', '-o', f'size={size}k', 'none', str(place)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            pytest.skip(f'no disk can be mounted here: {result.stderr.strip()}')
        mounted.append(place)
        return place

    yield mount
    for _ in mounted:
        subprocess.run(['umount', '--lazy', str(place)], check=True)


@pytest.fixture(scope='session')
def evaluated(tiny, trained, tmp_path_factory):
    """Work folder of an evaluation and its report."""
    from mpvit.engine.test import evaluate
    from mpvit.visualization.report import write_report

    work = tmp_path_factory.mktemp('evaluated') / 'work'
    evaluate(tiny[0], str(trained / 'epoch_2.pth'), work_dir=str(work), cfg_options=tiny[1])
    write_report(work)
    return work


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file() and path.suffix not in ('.log', '.py')
    }


COMMANDS = {
    'report': (lambda work, *_: ['report', work, '--out', work / 'new.html'], 'new.html'),
    'last report': (lambda work, *_: ['report', work], 'report.html'),
    'charts': (lambda work, *_: ['plot', 'errors', work], 'errors'),
    'evaluation': (
        lambda work, tiny, last: (
            ['test', tiny[0], last, '--work-dir', work] + ['--cfg-options', *tiny[1]]
        ),
        'work',
    ),
    'pickle': (
        lambda work, tiny, last: (
            ['test', tiny[0], last, '--work-dir', work.parents[1] / 'other']
            + ['--out', work / 'new.pkl', '--cfg-options', *tiny[1]]
        ),
        'new.pkl',
    ),
    'exported': (
        lambda work, tiny, last: ['export', tiny[0], last, '--out', work / 'new.onnx'],
        'new.onnx',
    ),
    'found': (
        lambda work, tiny, last: (
            ['infer', tiny[0], last, work.parents[1] / 'photos']
            + ['--out', work / 'found', '--threshold', '0']
        ),
        'found',
    ),
    'converted': (
        lambda work, tiny, last: ['convert_checkpoint', last, work / 'new.pth', '--to', 'official'],
        'new.pth',
    ),
}


@pytest.mark.parametrize('name', COMMANDS)
def test_a_result_that_does_not_fit(name, disk, refused, tiny, toy, trained, evaluated, tmp_path):
    command, says = COMMANDS[name]
    shutil.copytree(toy / 'val2017', tmp_path / 'photos')
    used = sum(path.stat().st_size + 4096 for path in evaluated.rglob('*'))
    place = disk(used // 1024 + 60)
    work = shutil.copytree(evaluated, place / 'work')
    (place / 'filler').write_bytes(bytes(shutil.disk_usage(place).free - 8192))
    before = contents(work)
    arguments = command(work, tiny, trained / 'epoch_2.pth')
    refused(*arguments, says=['space', says])
    after = contents(work)
    assert {path: after.get(path) for path in before} == before
    assert not list(place.rglob('.mpvit-*'))


@pytest.mark.parametrize('size', [40, 100, 300, 700, 1000])
def test_a_training_that_does_not_fit(size, disk, refused, tiny, tmp_path):
    work = disk(size) / 'work'
    refused('train', tiny[0], '--work-dir', work, '--cfg-options', *tiny[1], says=['space'])
    assert not list(work.rglob('.mpvit-*'))

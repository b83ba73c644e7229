"""What `pip install` brings: all that is needed to train and evaluate from an empty folder."""

import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from mmengine.config import Config

LEFT_OUT = ('.git', '.venv', 'build', 'data', 'dist', 'work_dirs', 'tests', '*.egg-info')


@pytest.fixture(scope='session')
def wheel(root, tmp_path_factory) -> Path:
    """The wheel of this state of the project."""
    source = tmp_path_factory.mktemp('source') / 'mpvit'
    ignore = shutil.ignore_patterns(*LEFT_OUT, '__pycache__', '.*_cache')
    shutil.copytree(root, source, symlinks=True, ignore=ignore)
    command = [sys.executable, '-m', 'build', '--wheel', '--no-isolation', str(source)]
    subprocess.run(command, check=True, capture_output=True, cwd=source.parent)
    (path,) = (source / 'dist').glob('*.whl')
    return path


def test_contents(root, wheel):
    with zipfile.ZipFile(wheel) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
    names = {name for name in entries if '.dist-info/' not in name}
    kinds = ('.py', '.cpp', '.html', '.css', '.js', '.json', '.md')
    package = {path for path in (root / 'mpvit').rglob('*') if path.suffix in kinds}
    expected = {str(path.relative_to(root)) for path in package if '.mim' not in path.parts}
    for folder in ('configs', 'tools'):
        files = [path for path in (root / folder).rglob('*.*') if path.suffix != '.pyc']
        expected |= {f'mpvit/.mim/{path.relative_to(root)}' for path in files}
    assert names == {*expected, 'mpvit/.mim/model-index.yml'}
    for name, entry in entries.items():
        if name.endswith('.sh'):
            assert (entry.external_attr >> 16) & stat.S_IXUSR, f'{name} cannot be executed'


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory) -> Path:
    """Folder ``bin`` of a new environment: the wheel, and this one's other packages behind it."""
    folder = tmp_path_factory.mktemp('installed')
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder], check=True)
    (site,) = folder.glob('lib/python*/site-packages')
    (site / 'others.pth').write_text(f'{Path(pytest.__file__).parents[1]}\n')
    python = folder / 'bin' / 'python'
    install = ['install', '--no-deps', '--no-index', '--ignore-installed', wheel]
    command = [sys.executable, '-m', 'pip', '--python', python, *install]
    subprocess.run(command, check=True, capture_output=True)
    return folder / 'bin'


@pytest.fixture
def run(installed, tmp_path):
    """Run a command of the new environment in an empty folder."""
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}

    def call(name: str, *arguments: object) -> str:
        command = [installed / name, *map(str, arguments)]
        result = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return call


@pytest.mark.slow
def test_the_installed_package_is_whole(root, run, toy, tmp_path):
    """Train, evaluate on one process and on two, all from an empty folder, no checkout near."""
    place = run('python', '-c', 'import mpvit; print(mpvit.__file__)').split()[-1]
    assert not Path(place).is_relative_to(root)
    narrow = Config.fromfile(root / 'tests/data/tiny.py').narrow.to_dict()
    (tmp_path / 'own.py').write_text(f"""
_base_ = 'mpvit::deformable_detr/mpvit_t_ddetr_toy.py'
model = dict(backbone=dict(arch={narrow}), neck=dict(in_channels=[32, 40]))
train_dataloader = dict(batch_size=4)
train_cfg = dict(max_epochs=1)
""")
    run('mpvit', 'train', 'own.py', '--data', toy)
    metrics = []
    for name, processes in (('test', ()), ('dist_test', (2,))):
        run('mpvit', name, 'own.py', 'work_dirs/own/epoch_1.pth', *processes, '--data', toy)
        metrics.append(json.loads((tmp_path / 'work_dirs/own/metrics.json').read_text())['metrics'])
    assert metrics[0] == metrics[1]
    run('mpvit', 'infer', 'own.py', 'work_dirs/own/epoch_1.pth', toy / 'val2017', '--out', 'found')
    assert {'annotated', 'detections.json'} <= {
        path.name for path in (tmp_path / 'found').iterdir()
    }
    run('mpvit', 'report', 'work_dirs/own')
    assert '</html>' in (tmp_path / 'work_dirs/own/report.html').read_text()
    page = Path(place).parent / 'app'
    assert (page / 'page.css').is_file()
    assert (page / 'select.js').is_file()
    assert 'mpvit_s_ddetr_50e' in run('mpvit', 'configs')

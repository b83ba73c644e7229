"""tools/plot.py and tools/report.py, as a user calls them."""

import json
import re

import pytest
from synthetic_detections import make_up


@pytest.fixture(scope='module')
def evaluated(tiny, trained, tmp_path_factory):
    """Work folder of an evaluation of the tiny detector, made through the package."""
    from mpvit.engine.test import evaluate

    config, places = tiny
    work = tmp_path_factory.mktemp('evaluated')
    checkpoint = str(trained / 'epoch_2.pth')
    numbers = evaluate(config, checkpoint, work_dir=str(work), cfg_options=places)
    return work, numbers


def test_an_evaluation_leaves_what_explains_it(evaluated, toy):
    work, numbers = evaluated
    record = json.loads((work / 'metrics.json').read_text())
    assert record['data'] == dict(
        annotations=f'{toy}/annotations/instances_val2017.json',
        images=f'{toy}/val2017',
        classes=None,
        detections=str(work / 'detections.bbox.json'),
        exif_turns=False,
    )
    assert {'mpvit', 'python', 'torch', 'mmdet', 'device'} <= set(record['software'])
    assert len(json.loads((work / 'detections.bbox.json').read_text())) == 600  # 6 images
    assert record['metrics'] == numbers


def test_detections_may_be_written_elsewhere(tool, tiny_run, trained, tmp_path):
    options = [f'test_evaluator.outfile_prefix={tmp_path / "mine"}']
    tiny_run('test', trained / 'epoch_2.pth', options=options)
    assert (tmp_path / 'mine.bbox.json').is_file()
    assert not (tmp_path / 'work' / 'detections.bbox.json').exists()
    tool('plot', 'errors', tmp_path / 'work')


def test_errors_of_a_run(tool, refused, evaluated, tmp_path):
    work, numbers = evaluated
    words = ('--threshold', '0.05', '--format', 'svg')
    result = tool('plot', 'errors', work, '--out', tmp_path / 'errors', *words)
    written = {str(path) for path in (tmp_path / 'errors').iterdir()}
    assert set(result.out.split()) == written
    assert len(written) == 10
    record = json.loads((tmp_path / 'errors' / 'errors.json').read_text())
    stats = [-1 if value is None else round(value, 3) for value in record['stats'].values()]
    assert stats == pytest.approx(list(numbers.values())[:12])
    out = tmp_path / 'errors'
    refused('plot', 'errors', work, '--out', out, says=[str(out)])


def test_curves_of_a_run(tool, trained, tmp_path):
    result = tool('plot', 'curves', trained, '--out', tmp_path / 'curves.svg')
    assert result.out == f'{tmp_path / "curves.svg"}\n'
    assert (tmp_path / 'curves.svg').is_file()


def test_the_report_of_a_training_says_what_it_ran_on(tool, trained, tmp_path):
    result = tool('report', trained, '--out', tmp_path / 'report.html')
    assert 'has no detections.bbox.json; evaluate first' in result.out
    text = (tmp_path / 'report.html').read_text()
    assert re.search(r'<th scope="row">torch</th><td>\d\S+</td>', text)
    assert 'MPViT embed_dims (16, 24, 32, 40)' in text


def test_report_of_a_run(tool, refused, evaluated, tmp_path):
    work, _ = evaluated
    result = tool('report', work)
    assert result.out.startswith(f'Report: {work / "report.html"}, 0.')
    assert 'not in it: ' in result.out  # it was trained in another folder
    assert '(it replaces the last one)' in tool('report', work).out
    (tmp_path / 'mine.html').write_text('mine')
    mine = tmp_path / 'mine.html'
    refused('report', work, '--out', mine, says=[str(mine)])
    assert (tmp_path / 'mine.html').read_text() == 'mine'


def test_errors_of_two_files_without_their_images(tool, tmp_path):
    truth, found = make_up(tmp_path, 10, 3)
    files = ('--ann', truth, '--detections', found, '--out', tmp_path / 'out')
    assert '10 of 10 images are not there' in tool('plot', 'errors', *files).out

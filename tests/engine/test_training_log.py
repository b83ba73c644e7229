"""Numbers of a training, also of one that was killed and resumed."""

import json
from datetime import timedelta

import pytest

from mpvit.engine.training_log import duration, read_history
from mpvit.errors import UserError


def log(work, name, records, end=''):
    folder = work / name / 'vis_data'
    folder.mkdir(parents=True)
    text = '\n'.join(json.dumps(record) for record in records)
    (folder / 'scalars.json').write_text(text + '\n' + end)
    return work / name


def steps(first, last, every=10, **numbers):
    return [
        dict(loss=step * 1.0, lr=0.1, epoch=1 + (step - 1) // 50, iter=step, step=step, **numbers)
        for step in range(first, last + 1, every)
    ]


def test_resumed_runs_are_joined_and_what_was_done_again_counts_once(tmp_path):
    log(tmp_path, '20260101_000000', [*steps(10, 80), {'coco/bbox_mAP': 0.1, 'step': 1}])
    later = [*steps(60, 150, again=1), {'coco/bbox_mAP': 0.2, 'step': 2}]
    log(tmp_path, '20260102_000000', later, end='{"loss": 3, "ste')  # killed while it wrote
    log(tmp_path, '20260103_000000', [{'coco/bbox_mAP': 0.9, 'step': 0}])  # an evaluation
    history = read_history(tmp_path)
    assert history.name == tmp_path.name
    assert history.training['loss'] == (list(range(10, 151, 10)), [10.0 * i for i in range(1, 16)])
    assert history.training['again'][0][0] == 60
    assert history.validation['coco/bbox_mAP'] == ([1, 2], [0.1, 0.2])
    assert history.by_epoch
    assert history.epochs == 3
    assert [folder.name for folder in history.logs] == ['20260101_000000', '20260102_000000']
    assert (history.last('loss'), history.last('none')) == (150.0, None)


@pytest.mark.parametrize(
    'line',
    [
        '{"step": 20, "loss": 1, "epoch": "x"}',
        '{"step": "20", "loss": 1}',
        '{"step": 1' + '0' * 400 + ', "loss": 1}',
        '[' * 100_000,
    ],
)
def test_lines_that_are_no_record_of_a_step_are_passed_over(tmp_path, line):
    log(tmp_path, 'run', steps(10, 30), end=f'{line}\n{{"step": 40, "loss": 4, "lr": "x"}}\n')
    history = read_history(tmp_path)
    assert history.training['loss'] == ([10, 20, 30, 40], [10.0, 20.0, 30.0, 4.0])
    assert history.training['lr'][0] == [10, 20, 30]


def test_numbers_that_no_chart_can_show_are_left_out(tmp_path):
    log(tmp_path, 'run', steps(10, 30), end='{"step": 40, "loss": 1' + '0' * 400 + '}\n')
    assert read_history(tmp_path).training['loss'][0] == [10, 20, 30]


def test_a_new_training_in_the_same_folder_takes_the_place_of_the_old_one(tmp_path):
    log(tmp_path, '20260101_000000', steps(10, 200))
    log(tmp_path, '20260102_000000', steps(10, 30))
    assert read_history(tmp_path).training['loss'][0] == [10, 20, 30]


def test_a_training_by_steps(tmp_path):
    log(tmp_path, 'run', [*steps(10, 100), {'coco/bbox_mAP': 0.1, 'step': 50}])
    assert not read_history(tmp_path).by_epoch


@pytest.mark.parametrize('content', [None, '', 'garbage\n\x00', '[1]\n3\nnull\n{"loss": 1}\n'])
def test_a_folder_without_numbers(tmp_path, content):
    if content is not None:
        folder = tmp_path / 'run' / 'vis_data'
        folder.mkdir(parents=True)
        (folder / 'scalars.json').write_text(content)
    with pytest.raises(UserError, match='has no log of a training'):
        read_history(tmp_path)


def test_time_of_a_log(tmp_path):
    assert duration(tmp_path) is None
    (tmp_path / 'run.log').write_text(
        '2026/11/26 01:00:00 - mmengine - INFO - \nSystem environment:\n'
        '2026/11/26 03:30:05 - mmengine - INFO - the end\nno time: 1\n'
        '2026/99/99 99:99:99 - no date\n'
    )
    assert duration(tmp_path) == timedelta(hours=2, minutes=30, seconds=5)

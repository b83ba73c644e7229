"""Curves of one and of several trainings."""

import json

import pytest
from PIL import Image

from mpvit.engine.training_log import read_history
from mpvit.errors import UserError
from mpvit.visualization.curves import draw_curves, plot_curves, run_names


@pytest.fixture
def runs(tmp_path):
    """Three work folders, two of them with the same name; the last one has no learning rate."""
    folders = [tmp_path / 'a' / 'toy', tmp_path / 'b' / 'toy', tmp_path / 'c']
    for number, work in enumerate(folders, start=1):
        records = [dict(loss=10 / (i + number), loss_cls=1.0, step=i + 1) for i in range(20)]
        if number < 3:
            records = [record | dict(lr=1e-3 * number, epoch=1) for record in records]
        records += [{'coco/bbox_mAP': 0.1 * e, 'coco/bbox_mAP_s': -1, 'step': e} for e in (1, 2)]
        (work / 'log' / 'vis_data').mkdir(parents=True)
        log = '\n'.join(json.dumps(record) for record in records)
        (work / 'log' / 'vis_data' / 'scalars.json').write_text(log)
    return folders


def test_one_run(runs):
    loss, rate, ap, sizes = draw_curves([read_history(runs[0])]).axes
    assert [line.get_label() for line in loss.lines] == ['total', 'class']
    assert loss.lines[0].get_ydata().tolist() == [10 / (i + 1) for i in range(20)]
    assert loss.get_yscale() == 'log'
    assert rate.lines[0].get_ydata().tolist() == [1e-3] * 20
    assert ap.lines[0].get_xdata().tolist() == [1, 2]
    assert not sizes.lines  # -1 is no AP
    assert [text.get_text() for text in sizes.texts] == ['nothing was logged']


def test_several_runs_keep_their_colours_where_one_of_them_logged_nothing(runs):
    figure = draw_curves([read_history(folder) for folder in runs])
    total, rate = figure.axes[0], figure.axes[4]
    colours = [line.get_color() for line in total.lines]
    assert len(set(colours)) == 3
    assert [line.get_color() for line in rate.lines] == colours[:2]
    assert len(figure.legends[0].texts) == 3


def test_runs_are_told_apart_by_the_end_of_their_path(runs):
    assert run_names(runs) == ['a/toy', 'b/toy', f'{runs[2].parent.name}/c']
    assert run_names(runs[1:]) == ['toy', 'c']
    with pytest.raises(UserError, match='named twice'):
        run_names([runs[0], runs[0].parent / 'toy'])


@pytest.mark.parametrize('suffix', ['.png', '.svg', '.pdf'])
def test_formats(runs, tmp_path, suffix):
    target = plot_curves(runs, tmp_path / f'curves{suffix}')
    start = target.read_bytes()[:60]
    assert {'.png': b'PNG', '.svg': b'<?xml', '.pdf': b'%PDF'}[suffix] in start
    if suffix == '.png':
        assert Image.open(target).width > Image.open(target).height > 300


def test_mistakes_of_the_user(runs, tmp_path):
    with pytest.raises(UserError, match='.png'):
        plot_curves(runs[0], tmp_path / 'curves.gif')
    with pytest.raises(UserError, match='has no log of a training'):
        plot_curves(tmp_path / 'none', tmp_path / 'curves.png')

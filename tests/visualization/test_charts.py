"""Charts of an analysis: they say its numbers, with few and with many classes."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from synthetic_detections import detections_file, make_up, truth_file

from mpvit.datasets.palette import class_colour
from mpvit.evaluation.analysis import Analysis
from mpvit.evaluation.result_files import read_results
from mpvit.visualization.charts import (
    CHARTS,
    ap_by_size,
    ap_per_class,
    confusion_matrix,
    error_chart,
    precision_recall,
)
from mpvit.visualization.style import shortened, svg

ODD = '<b>$5_x & "ü"</b>'


def study_of(tmp_path, images, classes):
    return Analysis(read_results(*make_up(tmp_path, images, classes, seed=5)))


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    """Of 5 classes."""
    return study_of(tmp_path_factory.mktemp('charts'), 40, 5)


@pytest.fixture(scope='module')
def many(tmp_path_factory):
    """Of 90 classes."""
    return study_of(tmp_path_factory.mktemp('many'), 60, 90)


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_bars_of_the_classes(study):
    (axes,) = ap_per_class(study).axes
    order = np.argsort(-study.class_ap[:, 0])
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [study.results.names[label] for label in order]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(study.class_ap[order, 0])
    assert texts(axes) == [f'{study.class_ap[label, 0]:.3f}' for label in order]


def test_many_classes_are_shown_in_part(many):
    figure = ap_per_class(many)
    assert len(figure.axes) == 2
    assert sum(len(axes.patches) for axes in figure.axes) == 80
    known = int((~np.isnan(many.class_ap[:, 0])).sum())  # the others have no objects
    assert f'the best and the worst 40 of {known}' in figure.get_suptitle()
    _, classes = precision_recall(many).axes
    assert len(classes.get_legend().texts) == 6
    (matrix,) = confusion_matrix(many).axes
    assert len(matrix.get_yticks()) == 41
    assert 'of 90 classes that are confused most' in matrix.get_title()


def test_no_two_labels_overlap(many):
    for figure in (ap_per_class(many), confusion_matrix(many), error_chart(many)):
        figure.canvas.draw()
        for axes in figure.axes:
            ticks = [tick for tick in axes.get_yticklabels() if tick.get_text()]
            boxes = [tick.get_window_extent() for tick in ticks]
            tops = sorted((box.y0, box.y1) for box in boxes)
            overlaps = [
                low for (_, high), (low, _) in zip(tops, tops[1:], strict=False) if low < high
            ]
            assert not overlaps, f'{figure.get_suptitle()} {axes.get_title()}'


def test_curves_of_precision(study):
    mean, classes = precision_recall(study).axes
    ap50 = study.stats['AP50']
    assert mean.lines[0].get_ydata().mean() == pytest.approx(ap50)
    assert mean.get_legend().texts[0].get_text() == f'IoU 0.5: AP {ap50:.3f}'
    assert mean.lines[2].get_ydata().mean() == pytest.approx(study.stats['AP'])
    best = int(np.argmax(study.class_ap[:, 1]))
    assert classes.lines[0].get_color() == class_colour(best)


def test_cells_of_the_confusion_matrix(study):
    (axes,) = confusion_matrix(study).axes
    shown = sorted(int(text) for text in texts(axes))
    assert shown == sorted(study.confusion[study.confusion > 0].tolist())
    alpha = np.asarray(axes.images[0].get_array())[..., 3]
    assert alpha[0] == pytest.approx(study.confusion[0] / study.confusion[0].sum())


def test_costs_and_counts_of_errors(study):
    costs, counts = error_chart(study).axes
    assert texts(costs) == [f'{100 * gain:.1f}' for gain in study.error_gains.values()]
    assert texts(counts) == [f'{count:,}' for count in study.error_counts().values()]


def test_sizes_say_how_many_objects_there_are(study):
    (axes,) = ap_by_size(study).axes
    ticks = ' '.join(tick.get_text() for tick in axes.get_xticklabels())
    area = study.results.objects.area
    assert f'{(area < 32**2).sum():,} objects' in ticks
    assert f'{study.stats["APm"]:.3f}' in texts(axes)


@pytest.mark.parametrize('objects', [[], [[10, 10, 50, 50]]])
@pytest.mark.parametrize('found', [[], [[300, 300, 50, 50]]])
def test_nothing_to_find_or_nothing_found(tmp_path, objects, found):
    truth = truth_file(
        tmp_path, [dict(image_id=1, category_id=1, bbox=box) for box in objects], [ODD]
    )
    entries = [dict(image_id=1, category_id=1, bbox=box, score=0.5) for box in found]
    study = Analysis(read_results(truth, detections_file(tmp_path, entries)))
    for draw, _ in CHARTS.values():
        assert 'nan' not in svg(draw(study), 'x').replace('sans', '')
    json.dumps(study.as_record(), allow_nan=False)


def test_names_are_text_and_nothing_else(tmp_path):
    truth = truth_file(tmp_path, [dict(image_id=1, category_id=1, bbox=[9, 9, 50, 50])], [ODD])
    study = Analysis(read_results(truth, detections_file(tmp_path, [])))
    text = svg(ap_per_class(study), 'chart')
    root = ElementTree.fromstring(text)
    names = [element.text for element in root.iter('{http://www.w3.org/2000/svg}text')]
    assert ODD in names
    assert '<b>' not in text


def test_a_chart_for_a_page(study):
    one, two = svg(error_chart(study), 'one'), svg(error_chart(study), 'two')
    ids = [
        element.get('id') for text in (one, two) for element in ElementTree.fromstring(text).iter()
    ]
    ids = [id_ for id_ in ids if id_]
    assert len(ids) == len(set(ids))
    for text in (one, two):
        ElementTree.fromstring(text)
        assert 'currentColor' in text  # text follows the page, which may be dark
    assert one == svg(error_chart(study), 'one')


def test_long_names_are_shortened():
    assert shortened('a' * 40, 10) == 'a' * 9 + '…'
    assert shortened('two\n lines') == 'two lines'

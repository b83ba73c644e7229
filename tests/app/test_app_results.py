import json
import re
from urllib.parse import unquote

import numpy as np
import pytest
from app_checkpoint import EVIL
from web import Elements

from mpvit.app.results import Filter, Result, _layer, coco, found_labels, picture_html, table_html
from mpvit.checkpoints.coco_categories import COCO_NAMES
from mpvit.inference import Detections
from mpvit.inference.queries import SamplingPoints

EVERYTHING = Filter(0, range(10))


def style(attributes):
    return {k.strip(): v.strip() for k, v in re.findall(r'([\w-]+):([^;]+)', attributes['style'])}


@pytest.fixture
def result():
    detections = Detections(
        boxes=np.array([[20, 10, 60, 30], [100, 0, 220, 50], [0, 0, 200, 100]], np.float32),
        scores=np.array([0.9, 0.6, 0.3], np.float32),
        labels=np.array([1, 0, 1]),
        classes=('circle', EVIL),
        size=(200, 100),
        queries=np.array([2, 0, 1]),
    )
    return Result('/a/<i>"x".jpg', '/b/1 2.webp', 'toy/epoch_1.pth', detections, 2)


@pytest.fixture
def points(result):
    """Three queries, one head, two levels, two points."""
    locations = np.zeros((3, 1, 2, 2, 2), np.float32)
    locations[2] = [[[[10, 10], [20, 20]], [[30, 30], [40, 40]]]]
    weights = np.full((3, 1, 2, 2), 0.25, np.float32)
    weights[2] = [[[0.1, 0.8], [0.1, 0]]]
    return SamplingPoints(
        layer=1,
        locations=locations,
        weights=weights,
        references=np.array([[0, 0], [0, 0], [50, 75]], np.float32),
        strides=(8.0, 16.0),
        **vars(result.detections),
    )


@pytest.mark.parametrize(
    ('threshold', 'labels', 'expected'),
    [
        (0, [0, 1], [0, 1, 2]),
        (0.3, [0, 1], [0, 1, 2]),
        (0.31, [0, 1], [0, 1]),
        (0.3, [1], [0, 2]),
        (1, [0, 1], []),
        (0, [], []),
    ],
)
def test_filter(result, threshold, labels, expected):
    assert Filter(threshold, labels).shown(result.detections) == expected


def test_classes_are_in_the_order_of_their_best_detections(result):
    assert found_labels(result.detections) == [1, 0]


def test_coco(result):
    found = coco(result, Filter(0.5, [0, 1]))
    assert found['images'] == [dict(id=1, file_name='<i>"x".jpg', width=200, height=100)]
    assert found['categories'] == [dict(id=1, name='circle'), dict(id=2, name=EVIL)]
    assert [(a['category_id'], a['bbox'], a['score']) for a in found['annotations']] == [
        (2, [20, 10, 40, 20], 0.9),
        (1, [100, 0, 120, 50], 0.6),
    ]


def test_coco_of_nothing_and_of_cocos_classes(result):
    assert coco(result, Filter(1, []))['annotations'] == []
    found = result.detections
    person = Detections(
        found.boxes, found.scores, np.array([0, 79, 79]), COCO_NAMES, found.size, None
    )
    annotations = coco(Result('x', 'y', 'z', person, 0), Filter(0, range(80)))['annotations']
    assert [a['category_id'] for a in annotations] == [1, 90, 90]  # COCO has gaps


def test_buttons_lie_on_the_detections_and_within_the_picture(result):
    boxes = Elements(picture_html(result, EVERYTHING)).named('box')
    places = [
        [float(style(box)[key].rstrip('%')) for key in ('left', 'top', 'width', 'height')]
        for box in boxes
    ]
    assert places == [[10, 10, 20, 20], [50, 0, 50, 50], [0, 0, 100, 100]]
    heights = [int(style(box)['z-index']) for box in boxes]
    assert heights[0] > heights[1] > heights[2]  # the smallest can be clicked
    assert [box['data-detection'] for box in boxes] == ['0', '1', '2']


def test_names_are_text(result):
    """Neither HTML nor attributes can come out of the name of a class or a file."""
    for html in (picture_html(result, EVERYTHING), table_html(result, EVERYTHING)):
        elements = Elements(html)
        assert {tag for tag, _ in elements.found}.isdisjoint({'b', 'script'})
        assert not any('onclick' in a or a.get('id') for _, a in elements.found)
        assert EVIL in elements.text
    assert Elements(picture_html(result, EVERYTHING)).named('img')[0]['alt'] == (
        '<i>"x".jpg with 3 detections'
    )


def test_samples_of_the_selected_detection(result, points):
    chosen = Result(**{**vars(result), 'selected': 0, 'points': points})
    elements = Elements(picture_html(chosen, EVERYTHING))
    samples = [style(a) for a in elements.named('sample')]
    assert [(s['left'], s['top']) for s in samples] == [
        ('5.00%', '10.00%'),
        ('15.00%', '30.00%'),
        ('10.00%', '20.00%'),  # the strongest last, above the others; none without weight
    ]
    assert [float(s['--strength']) for s in samples] == [0.125, 0.125, 1]
    assert samples[0]['--colour'] == samples[2]['--colour'] != samples[1]['--colour']
    (reference,) = map(style, elements.named('reference'))
    assert (reference['left'], reference['top']) == ('25.00%', '75.00%')
    assert [a['aria-pressed'] for a in elements.named('box')] == ['true', 'false', 'false']
    assert 'decoder layer 2 of 2' in elements.text


def test_samples_go_with_their_detection(result, points):
    chosen = Result(**{**vars(result), 'selected': 2, 'points': points})
    assert Elements(picture_html(chosen, EVERYTHING)).named('sample')
    assert not Elements(picture_html(chosen, Filter(0.5, [0, 1]))).named('sample')


def test_table_links_to_what_it_shows(result):
    shown = Filter(0.5, [0, 1])
    elements = Elements(table_html(result, shown))
    assert [a['data-detection'] for a in elements.named('button')] == ['0', '1']
    (link,) = elements.named('download')
    assert link['download'] == '<i>"x".json'
    content = link['href'].removeprefix('data:application/json,')
    assert json.loads(unquote(content)) == coco(result, shown)


@pytest.mark.parametrize(
    ('above', 'below'),
    [((20, 5), (200, 0)), ((1000, 0), (1010, 1)), ((1040, 0), (1000, 1))],
    ids=['small', 'better', 'better though larger'],
)
def test_what_lies_above(above, below):
    """Areas in percent of percent of the picture, and ranks by score."""
    assert _layer(*above) > _layer(*below)

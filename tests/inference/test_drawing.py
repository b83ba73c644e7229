"""The one drawer of boxes: where lines and labels are, how they look."""

import numpy as np
import pytest

from mpvit.datasets.palette import CLASSES, rgb
from mpvit.inference.drawing import Box, draw_boxes

RED, WHITE = '#ff0000', '#ffffff'


def where(picture, colour):
    """Rows and columns that have a colour."""
    return np.nonzero((picture == rgb(colour)).all(-1))


def grey(height=300, width=400):
    return np.full((height, width, 3), 90, np.uint8)


@pytest.mark.parametrize('scale', [1, 8])
def test_lines_lie_on_the_box_and_suit_the_image(scale):
    image = grey(300 * scale, 400 * scale)
    box = np.array([50, 60, 200, 160]) * scale
    picture = draw_boxes(image, [Box(box, RED)])
    assert (image == 90).all()  # not changed
    rows, columns = where(picture, RED)
    ends = [columns.min(), rows.min(), columns.max(), rows.max()]
    assert np.abs(ends - box).max() <= scale
    line = (picture[:, 100 * scale] == rgb(RED)).all(-1).sum() / 2  # its width in pixels
    assert max(2, scale - 1) <= line <= max(3, scale + 1)


def test_dashes_show_on_every_ground():
    picture = draw_boxes(grey(), [Box((50, 60, 200, 160), WHITE, dashed=True)])
    side = picture[60, 50:200]
    for colour in (WHITE, '#000000'):
        assert 0.4 < (side == rgb(colour)).all(-1).mean() < 0.6
    assert (picture[100, 100] == 90).all()


def test_the_last_box_is_on_top():
    place = (50, 60, 200, 160)
    boxes = [Box(place, WHITE, dashed=True), *(Box(place, colour) for colour in CLASSES)]
    assert (draw_boxes(grey(), boxes)[60, 50:200] == rgb(CLASSES[-1])).all()


def test_labels_keep_clear_of_each_other_and_in_the_picture():
    place = (150, 100, 200, 160)
    alone = draw_boxes(grey(), [Box(place, RED, 'label 0.5')])
    lines = draw_boxes(grey(), [Box(place, RED)])
    area = len(where(alone, RED)[0]) - len(where(lines, RED)[0])
    together = draw_boxes(grey(), [Box(place, colour, 'label 0.5') for colour in CLASSES[:3]])
    corner = draw_boxes(grey(), [Box((-9, -9, 30, 30), RED, 'label 0.5')])
    for picture, colour in [(corner, RED), *((together, colour) for colour in CLASSES[:3])]:
        assert len(where(picture, colour)[0]) > 0.8 * area


def test_boxes_may_lie_anywhere():
    places = [(-1e12, 50, 1e12, 100), (500, 900, 600, 1000), (9, 9, 9, 9)]
    rows, _ = where(draw_boxes(grey(), [Box(place, RED) for place in places]), RED)
    assert {50, 100, 9} <= {*rows.tolist()}
    assert (draw_boxes(grey(), []) == 90).all()

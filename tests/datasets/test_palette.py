"""A class has one colour, whoever draws it."""

import numpy as np
import pytest

from mpvit.app.results import Filter, Result, picture_html
from mpvit.config.own_data import palette
from mpvit.datasets.palette import CLASSES, LEVELS, class_colour, ink_on, level_colour, rgb
from mpvit.inference import Detections
from mpvit.inference.drawing import draw


@pytest.mark.parametrize('label', range(7))
def test_a_class_has_one_colour_in_every_picture(label):
    colour = class_colour(label)
    found = Detections(
        boxes=np.array([[20, 40, 180, 160]], np.float32),
        scores=np.array([0.9], np.float32),
        labels=np.array([label]),
        classes=tuple('abcdefg'),
        size=(200, 200),
    )
    picture = draw(np.full((200, 200, 3), 90, np.uint8), found)
    assert np.array_equal(picture[160, 100], rgb(colour))
    result = Result('a.jpg', 'a.jpg', 'checkpoint', found, 0)
    page = picture_html(result, Filter(0, [label]))
    assert f'--colour: {colour}; --ink: {ink_on(colour)}"' in page
    assert palette(7)[label] == rgb(colour)


def test_colours_repeat_and_text_on_them_can_be_read():
    assert class_colour(7) == CLASSES[0]
    assert level_colour(8) == LEVELS[1]

    def luminance(colour):  # of WCAG 2
        parts = np.array(rgb(colour)) / 255
        parts = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return parts @ (0.2126, 0.7152, 0.0722)

    for colour in (*CLASSES, *LEVELS):
        light, dark = sorted([luminance(colour), dict(black=0, white=1)[ink_on(colour)]])[::-1]
        assert (light + 0.05) / (dark + 0.05) > 3, colour  # for large and bold text

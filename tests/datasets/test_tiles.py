"""Tiles hold the boxes of the image, by properties that hold for any image."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from mpvit.datasets.tiles import tiles

SIZES = [(2299, 2472), (1249, 1035), (400, 599), (17, 5000), (601, 1001)]


def random_boxes(size, count=300, longest=199, seed=0):
    """Boxes with whole numbers, ``(count, 4)``, all within the image."""
    rng = np.random.default_rng(seed)
    extent = np.minimum(rng.integers(1, longest, (count, 2)), size)
    first = np.floor(rng.random((count, 2)) * (np.array(size) - extent + 1))
    return np.hstack([first, first + extent])


def area(boxes):
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


@pytest.mark.parametrize('overlapping', [False, True])
@pytest.mark.parametrize('size', SIZES)
def test_boxes_map_back_and_at_least_half_of_each_is_in_the_tile(size, overlapping):
    boxes = random_boxes(size)
    for tile in tiles(size, boxes, overlapping=overlapping):
        left, top, right, bottom = tile.place
        assert_array_equal(tile.rows, np.unique(tile.rows))
        back = tile.boxes + [left, top, left, top]
        whole = boxes[tile.rows]
        assert (tile.boxes >= 0).all()
        assert (tile.boxes[:, 2:] <= [right - left, bottom - top]).all()
        assert_array_equal(back[:, :2], np.maximum(whole[:, :2], [left, top]))
        assert_array_equal(back[:, 2:], np.minimum(whole[:, 2:], [right, bottom]))
        assert (area(tile.boxes) >= 0.5 * area(whole)).all()
        for x1, y1, x2, y2 in np.delete(boxes, tile.rows, axis=0):  # those left out
            width, height = min(x2, right) - max(x1, left), min(y2, bottom) - max(y1, top)
            assert max(width, 0) * max(height, 0) < 0.5 * (x2 - x1) * (y2 - y1)


@pytest.mark.parametrize('size', SIZES)
def test_each_pixel_is_in_one_tile(size):
    covered = np.zeros(size[::-1], int)
    for tile in tiles(size, []):
        left, top, right, bottom = tile.place
        covered[top:bottom, left:right] += 1
        assert tile.boxes.shape == (0, 4)
    assert_array_equal(covered, 1)


@pytest.mark.parametrize('size', SIZES)
def test_sides_are_equal_and_no_rest_is_narrow(size):
    for overlapping in (False, True):
        places = np.array([tile.place for tile in tiles(size, [], overlapping=overlapping)])
        for axis in (0, 1):
            sides = places[:, axis + 2] - places[:, axis]
            assert np.ptp(sides) <= 1  # rounded
            if size[axis] < 600:
                assert set(sides) == {size[axis]}
            else:
                assert 300 <= sides.min() <= sides.max() <= 500


@pytest.mark.parametrize('size', SIZES)
def test_every_smaller_box_is_whole_in_a_tile_that_overlaps_others(size):
    shortest = min(t.place[i + 2] - t.place[i] for t in tiles(size, []) for i in (0, 1))
    boxes = random_boxes(size, count=3000, longest=max(shortest // 2 - 1, 2))
    found = list(tiles(size, boxes, overlapping=True))
    whole = [area(tile.boxes) == area(boxes[tile.rows]) for tile in found]
    rows = [tile.rows[kept] for tile, kept in zip(found, whole, strict=True)]
    assert_array_equal(np.unique(np.concatenate(rows)), np.arange(len(boxes)))


def test_order_counts_and_overlap():
    places = [tile.place for tile in tiles((800, 400), [])]
    assert places == [(0, 0, 400, 400), (400, 0, 800, 400)]
    places = [tile.place for tile in tiles((800, 400), [], overlapping=True)]
    assert places == [(0, 0, 400, 400), (200, 0, 600, 400), (400, 0, 800, 400)]
    assert len(list(tiles((2299, 2472), [], overlapping=True))) == 121
    assert len(list(tiles((1249, 1035), []))) == 9
    assert len(list(tiles((1249, 1035), [], side=200))) == 6 * 5


def test_half_of_a_box_in_a_tile_is_enough():
    boxes = [[390, 0, 420, 10], [390, 0, 410, 10]]  # a third lies in the first tile, and half
    first, second = tiles((800, 400), boxes)
    assert (first.rows.tolist(), second.rows.tolist()) == ([1], [0, 1])
    assert second.boxes.tolist() == [[0, 0, 20, 10], [0, 0, 10, 10]]

"""Images with boxes: what is drawn, where, and in which colour."""

import json
from dataclasses import replace

import numpy as np
import pytest
import turned
from PIL import Image, ImageColor, ImageOps
from synthetic_detections import detections_file, found_in, truth_file

from mpvit.datasets.palette import class_colour
from mpvit.evaluation.analysis import Analysis
from mpvit.evaluation.result_files import read_results
from mpvit.visualization import error_pictures as errors
from mpvit.visualization.error_pictures import (
    Photos,
    contact_sheet,
    draw_errors,
    image_sheet,
    mistake_sheet,
)

BOX = [20, 20, 40, 40]


def photos_of(tmp_path, detections, side=320, objects=(BOX,), image=None):
    """Of one grey image of 160 x 120 with objects, and with detections (class, box, score)."""
    truth = truth_file(
        tmp_path,
        [dict(image_id=1, category_id=1, bbox=box) for box in objects],
        ['circle', 'square'],
    )
    content = json.loads(truth.read_text())
    content['images'][0].update(width=160, height=120)
    truth.write_text(json.dumps(content))
    (image or Image.new('RGB', (160, 120), (90, 90, 90))).save(tmp_path / '1.jpg', quality=95)
    found = [
        dict(image_id=1, category_id=label, bbox=box, score=score)
        for label, box, score in detections
    ]
    results = read_results(truth, detections_file(tmp_path, found), tmp_path)
    return Photos(Analysis(results), side)


def coloured(picture, colour):
    """Where a picture has a colour."""
    return (np.asarray(picture).astype(int) - ImageColor.getrgb(colour)).__abs__().sum(-1) < 12


def test_boxes_lie_where_they_were_found(tmp_path):
    picture = photos_of(tmp_path, [(1, BOX, 0.9)]).picture(0)
    assert picture.size == (320, 240)  # twice as large as the image
    rows, columns = np.nonzero(coloured(picture, class_colour(0))[41:, :])  # below the label
    # lines are 3 pixels wide
    assert (columns.min(), columns.max()) == (39, 121)
    assert rows.max() + 41 == 121
    assert not coloured(picture, 'white')[41:].any()  # nothing was missed


def test_boxes_lie_where_they_were_found_in_large_photographs(tmp_path):
    box = [2400, 1200, 1200, 1200]
    image = Image.new('RGB', (6400, 4800), (60, 60, 60))  # decoded at a fraction of its size
    image.paste('white', (2400, 1200, 3600, 2400))
    picture = np.asarray(photos_of(tmp_path, [(1, box, 0.9)], 320, [box], image).picture(0))
    assert picture.shape == (240, 320, 3)
    rows, columns = np.nonzero(coloured(picture, class_colour(0))[80:])  # below the label
    assert (columns.min(), columns.max(), rows.max() + 80) == (119, 181, 121)
    assert picture[65:117, 124:177].min() > 250
    assert picture[123:].max() < 70
    photos = photos_of(tmp_path, [(2, box, 0.9)], 320, [box], image)
    (wrong,) = photos.mistakes('class', 5)
    pixels = np.asarray(wrong.picture)
    assert pixels[85:235, 85:235].min() > 250  # the object is the middle half
    assert pixels[:, :75].max() < 70


@pytest.mark.parametrize('orientation', turned.STORED)
def test_photographs_are_turned_as_their_boxes_are_meant(tmp_path, orientation):
    upright = Image.new('RGB', (120, 160), (60, 60, 60))
    upright.paste('white', (70, 20, 110, 60))
    photos = photos_of(tmp_path, [(2, [70, 20, 40, 40], 0.9)])
    turned.save(upright, tmp_path / '1.jpg', orientation, format='PNG')
    shown = ImageOps.exif_transpose(Image.open(tmp_path / '1.jpg'))
    assert np.array_equal(shown, upright)

    def is_upright(exif_turns, size):
        results = replace(photos.analysis.results, exif_turns=exif_turns, sizes=np.array([size]))
        drawn = Photos(Analysis(results))
        picture, (mistake,) = drawn.picture(0), drawn.mistakes('background', 1)
        cut = np.asarray(mistake.picture)[90:230, 90:230].min() > 240  # the middle is white
        whole = picture.size == (240, 320) and np.asarray(picture)[70:110, 150:210].min() > 240
        assert cut == whole
        return cut

    assert is_upright(True, (120.0, 160.0))
    assert not is_upright(False, (160.0, 120.0))
    # where nobody says so the annotated size does, if width and height change places
    assert is_upright(None, (120.0, 160.0)) == (orientation >= 5)
    assert not is_upright(None, (160.0, 120.0))


def test_missed_objects_are_white_and_wrong_detections_dashed(tmp_path):
    found = photos_of(tmp_path, [(1, BOX, 0.9)]).picture(0)
    photos = photos_of(tmp_path, [(2, [90, 70, 40, 30], 0.9)])
    wrong = photos.picture(0)
    assert coloured(wrong, 'white')[42:118, 38:43].sum() > 20
    solid = coloured(found, class_colour(0))[60:119, 40].mean()
    dashed = coloured(wrong, class_colour(1))[160:199, 180].mean()
    assert solid > 0.95
    assert 0.2 < dashed < 0.8
    assert photos.caption(0) == '0 found, 1 missed, 1 wrong'


def test_files_that_cannot_be_read_are_blanks_of_the_right_size(tmp_path):
    photos = photos_of(tmp_path, [(1, BOX, 0.9)])
    for content in (b'', b'no image', (tmp_path / '1.jpg').read_bytes()[:300]):
        (tmp_path / '1.jpg').write_bytes(content)
        assert photos.picture(0).size == (320, 240)
        assert photos.unreadable == [tmp_path.resolve() / '1.jpg']
        assert photos.caption(0).endswith('cannot be read')


def test_mistakes_show_what_is_wrong_and_where(tmp_path):
    detections = [(2, BOX, 0.9), (2, [100, 60, 30, 30], 0.8), (1, [100, 60, 30, 30], 0.2)]
    photos = photos_of(tmp_path, detections, side=160)
    (wrong,) = photos.mistakes('class', 5)
    assert (wrong.caption, wrong.image) == ('square 0.90, is circle', 0)
    assert wrong.picture.size == (160, 160)
    # the crop is twice as wide as the box, which therefore fills its middle half
    rows, columns = np.nonzero(coloured(wrong.picture, class_colour(1)))
    assert (rows.min(), columns.max()) == (39, 121)
    (nothing,) = photos.mistakes('background', 5)
    assert nothing.caption == 'square 0.80'
    assert not list(photos.mistakes('missed', 5))  # it is covered by the wrong class


def test_contact_sheet_draws_detections_above_the_threshold(toy, tmp_path):
    truth = toy / 'annotations' / 'instances_val2017.json'
    image_id = json.loads(truth.read_text())['images'][0]['id']

    def sheet(score):
        detection = dict(image_id=image_id, category_id=1, bbox=[5, 5, 60, 60], score=score)
        found = detections_file(tmp_path, [detection])
        path = contact_sheet(truth, found, toy / 'val2017', tmp_path / 'sheet.png')
        return np.asarray(Image.open(path).convert('RGB'), int)

    weak, strong = sheet(0.1), sheet(0.9)
    assert weak.shape == strong.shape
    changed = np.nonzero(np.abs(weak - strong).sum(-1))
    assert len(changed[0]) > 100
    assert changed[1].max() < 0.2 * weak.shape[1]  # only within the first of the 6 cells


def test_contact_sheet_takes_images_from_the_whole_set(tmp_path, monkeypatch):
    truth, images = truth_file(tmp_path, [], ['a'], 47), []

    def sheet(photos, chosen, title, columns):
        images.extend(chosen)
        return Image.new('RGB', (9, 9))

    monkeypatch.setattr(errors, 'image_sheet', sheet)
    contact_sheet(truth, detections_file(tmp_path, []), tmp_path, tmp_path / 'a.png')
    assert images == list(range(0, 47, 2))


def test_hundreds_of_images_fit_on_a_sheet(tmp_path, monkeypatch):
    objects = [dict(image_id=i, category_id=1, bbox=BOX) for i in range(1, 729)]
    study = Analysis(
        read_results(truth_file(tmp_path, objects, ['a'], 728), detections_file(tmp_path, []))
    )
    monkeypatch.setattr(errors, 'CHARTS', {})
    monkeypatch.setattr(Photos, 'picture', lambda self, image: Image.new('RGB', (320, 320)))
    written = list(draw_errors(study, tmp_path / 'errors', count=1000))
    assert max(Image.open(tmp_path / 'errors' / 'worst_images.jpg').size) < 15_000
    assert len(written) == 4


def test_sheets_of_a_real_dataset(toy, tmp_path):
    truth = toy / 'annotations' / 'instances_val2017.json'
    entries = [dict(entry, category_id=1) for entry in found_in(truth)]  # all are circles
    found = detections_file(tmp_path, entries)
    photos = Photos(Analysis(read_results(truth, found, toy / 'val2017')), 200)
    sheet = image_sheet(photos, [0, 1, 2, 3, 4, 5], 'All.', columns=3)
    assert sheet.width >= 3 * 200
    assert mistake_sheet(photos, 4).height > 100
    assert image_sheet(photos, [], 'None.').height > 20
    assert not photos.unreadable

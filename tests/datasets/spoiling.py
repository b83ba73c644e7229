"""Ways to spoil a dataset, and what the check must say to each: exactly these codes."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image


@dataclass
class Case:
    """One way.

    Attributes:
        spoil: Changes the dataset in place.
        found: Code and severity of all that must be found, and nothing else.
        arguments: Of `check_dataset`.
    """

    spoil: Callable[[Any], object]
    found: dict[str, str]
    arguments: dict[str, Any] = field(default_factory=dict)


CASES: dict[str, Case] = {}


def case(arguments: dict[str, Any] | None = None, **found: str) -> Callable:
    """Enter a function into `CASES` under its name; codes are written with underscores."""

    def enter(spoil: Callable[[Any], object]) -> Callable[[Any], object]:
        codes = {code.replace('_', '-'): severity for code, severity in found.items()}
        CASES[spoil.__name__] = Case(spoil, codes, arguments or {})
        return spoil

    return enter


def set_box(box: Any) -> Callable[[Any], None]:
    def spoil(data: Any) -> None:
        data.train['annotations'][4]['bbox'] = box

    return spoil


BOXES = {
    'three numbers': ([1, 2, 3], 'box-malformed', 'fatal'),
    'five numbers': ([1, 2, 3, 4, 5], 'box-malformed', 'fatal'),
    'text': (['1', '2', '3', '4'], 'box-malformed', 'fatal'),
    'null within': ([1, None, 3, 4], 'box-malformed', 'fatal'),
    'null': (None, 'box-malformed', 'fatal'),
    'object': ({'x': 1}, 'box-malformed', 'fatal'),
    'nan': ([1, math.nan, 3, 4], 'box-not-finite', 'fatal'),
    'infinity': ([1, 2, math.inf, 4], 'box-not-finite', 'fatal'),
    'too large for a float': ([1, 2, 10**400, 4], 'box-not-finite', 'fatal'),
    'zero width': ([1, 2, 0, 4], 'box-no-area', 'error'),
    'negative height': ([10, 20, 5, -4], 'box-no-area', 'error'),
    'right of the image': ([64, 2, 10, 10], 'box-outside', 'error'),
    'above the image': ([5, -20, 10, 10], 'box-outside', 'error'),
    'over the left edge': ([-5, 2, 20, 10], 'box-partly-outside', 'warning'),
    'over the lower edge': ([5, 40, 10, 20], 'box-partly-outside', 'warning'),
}
for _name, (_box, _code, _severity) in BOXES.items():
    CASES[f'box: {_name}'] = Case(set_box(_box), {_code: _severity})
# rounding is no fault
CASES['box: half a pixel over the edge'] = Case(set_box([50, 2, 14.5, 10]), {})


# ------------------------------------------------------------------------------------- the files
@case(file_missing='fatal')
def no_annotation_file(data):
    data.val = None


@case(folder_missing='fatal')
def no_image_folder(data):
    shutil.rmtree(data.root / 'val')


@case(json_invalid='fatal')
def broken_off(data):
    data.val = b'{"images": [{"id": 1'


@case(json_invalid='fatal')
def empty_file(data):
    data.val = b''


@case(json_invalid='fatal')
def utf_16(data):
    data.val = '{}'.encode('utf-16')


@case(json_bom='fatal')
def byte_order_mark(data):
    data.val = b'\xef\xbb\xbf' + json.dumps(data.val).encode()


@case(not_coco='fatal')
def list_at_the_top(data):
    data.val = b'[{"image_id": 1, "bbox": [1, 2, 3, 4]}]'


@case(not_coco='fatal')
def no_list_of_categories(data):
    del data.val['categories']


@case(no_images='fatal', val_without_boxes='error', image_unknown='error', image_orphan='warning')
def empty_list_of_images(data):
    data.val['images'] = []


@case(
    {'classes': ('cat', 'dog', 'owl')},
    no_categories='fatal',
    val_without_boxes='error',
    category_unknown='error',
    class_not_in_data='fatal',
)
def empty_list_of_categories(data):
    data.val['categories'] = []


@case(no_usable_box='fatal', image_without_boxes='info', class_without_boxes='warning')
def no_annotation_to_train_on(data):
    data.train['annotations'] = []


@case(val_without_boxes='error', image_without_boxes='info')
def no_annotation_to_validate_on(data):
    data.val['annotations'] = []


# ------------------------------------------------------------------------------- entries and ids
@case(image_malformed='fatal', image_unknown='error', image_orphan='warning')
def image_with_a_text_id(data):
    data.val['images'][0]['id'] = '100'


@case(image_malformed='fatal', image_unknown='error', image_orphan='warning')
def image_without_file_name(data):
    del data.val['images'][0]['file_name']


@case(image_malformed='fatal')
def image_without_size(data):
    del data.val['images'][0]['width']


@case(image_malformed='fatal')
def image_with_negative_size(data):
    data.val['images'][0]['height'] = -48


@case(annotation_malformed='fatal')
def annotation_without_id(data):
    del data.val['annotations'][0]['id']


@case(annotation_malformed='fatal')
def annotation_that_is_a_number(data):
    data.val['annotations'][0] = 7


@case(annotation_malformed='fatal')
def annotation_with_a_list_for_its_image(data):
    data.val['annotations'][0]['image_id'] = [100]


@case(
    category_malformed='fatal',
    category_unknown='error',
    category_id_gaps='info',
    categories_differ='fatal',
)
def category_without_name(data):
    data.val['categories'][0] = {'id': 1}


@case(
    image_id_duplicate='error',
    image_unknown='error',
    image_without_boxes='info',
)
def two_images_with_one_id(data):
    data.train['images'][1]['id'] = 100


@case(annotation_id_duplicate='fatal')
def two_annotations_with_one_id(data):
    data.train['annotations'][1]['id'] = 1


@case(file_name_duplicate='error', image_orphan='warning')
def two_images_with_one_file(data):
    data.train['images'][1]['file_name'] = '00.png'


@case(
    category_id_duplicate='fatal',
    category_unknown='error',
    category_id_gaps='info',
    class_without_boxes='warning',
)
def two_categories_with_one_id(data):
    for content in (data.train, data.val):
        content['categories'][0]['id'] = 2


@case(category_name_duplicate='fatal')
def two_categories_with_one_name(data):
    for content in (data.train, data.val):
        content['categories'][0]['name'] = 'dog'


@case(category_id_gaps='info')
def ids_with_gaps(data):
    for content in (data.train, data.val):
        content['categories'][2]['id'] = 7
        for annotation in content['annotations']:
            if annotation['category_id'] == 3:
                annotation['category_id'] = 7


@case(category_unknown='error')
def unknown_category(data):
    data.train['annotations'][5]['category_id'] = 9


@case(image_unknown='error')
def unknown_image(data):
    data.train['annotations'][5]['image_id'] = 9


# ----------------------------------------------------------------------------------------- boxes
@case(box_duplicate='warning')
def the_same_box_twice(data):
    annotations = data.train['annotations']
    annotations.append({**annotations[0], 'id': 1000})


@case(boxes_normalized='fatal')
def boxes_as_shares(data):
    for annotation in data.train['annotations']:
        x, y, w, h = annotation['bbox']
        annotation['bbox'] = [x / 64, y / 48, w / 64, h / 48]


@case(boxes_are_corners='fatal', box_partly_outside='warning')
def boxes_as_corners(data):
    for annotation in data.train['annotations']:
        x, y, w, h = annotation['bbox']
        annotation['bbox'] = [x + 10, y + 10, x + w + 10, y + h + 10]


@case(area_missing='warning')
def no_area(data):
    del data.train['annotations'][0]['area']


@case(iscrowd_missing='warning')
def no_iscrowd(data):
    del data.train['annotations'][0]['iscrowd']


@case(crowd='info')
def crowds(data):
    data.train['annotations'][0]['iscrowd'] = 1


# --------------------------------------------------------------------------------------- classes
@case({'classes': ('cat', 'dog', 'owl', 'elk')}, class_not_in_data='fatal')
def class_that_the_files_do_not_have(data):
    pass


@case({'classes': ('cat', 'dog')}, class_not_in_config='warning')
def category_that_is_no_class(data):
    pass


@case({'classes': ('cat', 'dog')})
def category_without_boxes_that_is_no_class(data):
    for content in (data.train, data.val):
        content['annotations'] = [a for a in content['annotations'] if a['category_id'] != 3]


@case({'classes': ('cat', 'owl', 'dog')}, class_order='fatal')
def classes_in_another_order(data):
    pass


@case(categories_differ='fatal')
def splits_with_other_names(data):
    data.val['categories'][1]['name'] = 'wolf'


@case(class_without_boxes='warning')
def class_that_does_not_occur(data):
    for content in (data.train, data.val):
        content['categories'].append(dict(id=4, name='elk'))


@case(class_rare='warning')
def class_that_hardly_occurs(data):
    data.train['annotations'] = [
        a for a in data.train['annotations'] if a['category_id'] != 3 or a['image_id'] < 105
    ]


@case(class_imbalance='info', class_rare='warning')
def one_class_far_more_frequent(data):
    kept = [a for a in data.train['annotations'] if a['category_id'] != 3 or a['image_id'] == 100]
    more = [{**kept[0], 'id': 1000 + i, 'bbox': [i % 20, i // 20, 9.0, 9.0]} for i in range(100)]
    data.train['annotations'] = kept + more


# ------------------------------------------------------------------------------------ image files
@case(no_image_found='fatal', image_orphan='warning')
def file_names_with_the_folder(data):
    for image in data.train['images']:
        image['file_name'] = 'train/' + image['file_name']


@case(image_missing='error')
def a_missing_file(data):
    data.image(2).unlink()


@case(image_unreadable='error')
def an_empty_image(data):
    data.image(2).write_bytes(b'')


@case(image_unreadable='error')
def a_truncated_image(data):
    whole = data.image(2).read_bytes()
    data.image(2).write_bytes(whole[: len(whole) // 2])


@case(image_unreadable='error')
def text_called_an_image(data):
    data.image(2).write_text('<html>404</html>')


@case(image_unreadable='error')
def a_folder_called_like_an_image(data):
    data.image(2).unlink()
    data.image(2).mkdir()


@case(size_mismatch='error')
def another_size(data):
    data.train['images'][0]['width'] = 70


@case(size_and_boxes_mismatch='error')
def another_size_that_the_boxes_need(data):
    Image.open(data.image(0)).resize((16, 12)).save(data.image(0))


def jpeg_with_orientation(data, orientation, size=(64, 48)):
    """Put a JPEG of a stored size in the place of the first image."""
    rng = np.random.default_rng(1)
    picture = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(data.image(0), format='JPEG', exif=exif)


@case(exif_stored='info')
def turned_with_the_stored_size(data):
    jpeg_with_orientation(data, 6)


@case(exif_turned='error')
def turned_with_the_turned_size(data):
    jpeg_with_orientation(data, 6, (48, 64))


@case({'exif_turns': True})
def turned_with_the_turned_size_and_loaded_so(data):
    jpeg_with_orientation(data, 6, (48, 64))


@case({'exif_turns': True}, size_and_boxes_mismatch='error')
def turned_with_the_stored_size_and_loaded_turned(data):
    jpeg_with_orientation(data, 6)
    data.train['annotations'][0]['bbox'] = [50, 10, 12, 12]


@case(exif_ambiguous='warning')
def upside_down(data):
    jpeg_with_orientation(data, 3)


def save_as(data, mode, **options):
    Image.open(data.image(0)).convert(mode).save(data.image(0), **options)


@case(image_deep='error')
def sixteen_bits(data):
    pixels = np.random.default_rng(0).integers(0, 65536, (48, 64), np.uint16)
    Image.fromarray(pixels).save(data.image(0))


@case(image_cmyk='warning')
def cmyk(data):
    save_as(data, 'CMYK', format='JPEG')


@case(image_alpha='warning')
def transparency(data):
    save_as(data, 'RGBA')


@case(image_alpha='warning')
def palette_with_transparency(data):
    save_as(data, 'P', transparency=0)


@case(image_palette='info')
def palette(data):
    save_as(data, 'P')


@case(image_grayscale='info')
def grey(data):
    save_as(data, 'L')


@case(image_orphan='warning')
def a_file_that_nobody_lists(data):
    Image.new('RGB', (9, 9)).save(data.root / 'val' / 'other.png')
    (data.root / 'val' / 'notes.txt').write_text('no image')


@case(image_without_boxes='info')
def an_image_without_boxes(data):
    data.val['annotations'] = data.val['annotations'][3:]


@case(image_duplicate='warning')
def the_same_image_twice(data):
    shutil.copy(data.image(1), data.image(2))


@case(val_in_train='error')
def the_same_content_in_both_splits(data):
    shutil.copy(data.image(5), data.image(1, 'val'))


@case(val_in_train='error', image_orphan='warning')
def the_same_file_in_both_splits(data):
    data.val['images'][1]['file_name'] = '../train/01.png'


def scales(*values):
    from mpvit.datasets.check import Scales

    return {'scales': Scales(*values)}


@case(scales(48, 96, 200), box_sizes='info')
def usual_scales(data):
    pass


@case(scales(12, 16, 22), box_sizes='info', boxes_tiny='warning')
def small_scales(data):
    pass


@case(scales(48, 48 * 4, 1000), box_sizes='info', images_enlarged='warning')
def large_scales(data):
    pass

"""Ways to spoil a dataset, and what the check must say to each: exactly these codes."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from mpvit.datasets.check import Scales


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


def case(spoil: Callable[[Any], object], /, **found: Any) -> Case:
    """A case; codes are written with underscores, arguments of the check stand among them."""
    arguments = {
        name: found.pop(name) for name in ('classes', 'scales', 'exif_turns') if name in found
    }
    return Case(spoil, {code.replace('_', '-'): s for code, s in found.items()}, arguments)


def put(value: Any, role: str, *keys: Any) -> Callable[[Any], None]:
    """Set what lies in a file below the keys."""

    def spoil(data: Any) -> None:
        for name in ('train', 'val') if role == 'both' else (role,):
            place = getattr(data, name)
            for key in keys[:-1]:
                place = place[key]
            place[keys[-1]] = value

    return spoil


def drop(role: str, *keys: Any) -> Callable[[Any], None]:
    """Remove an entry of a file."""

    def spoil(data: Any) -> None:
        place = getattr(data, role)
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]

    return spoil


def content(value: Any) -> Callable[[Any], None]:
    """Put bytes in the place of the validation file, or nothing."""
    return lambda data: setattr(data, 'val', value)


def nothing(data: Any) -> None:
    """The arguments are the fault."""


def keep(role: str, wanted: Callable[[dict], bool]) -> Callable[[Any], None]:
    """Keep some of the annotations."""

    def spoil(data: Any) -> None:
        for name in ('train', 'val') if role == 'both' else (role,):
            file = getattr(data, name)
            file['annotations'] = [a for a in file['annotations'] if wanted(a)]

    return spoil


def boxes(change: Callable[..., list[float]]) -> Callable[[Any], None]:
    """Change every box of the training file."""

    def spoil(data: Any) -> None:
        for annotation in data.train['annotations']:
            annotation['bbox'] = change(*annotation['bbox'])

    return spoil


def saved(mode: str, **options: Any) -> Callable[[Any], None]:
    """Save the first image in another mode."""
    return lambda data: Image.open(data.image(0)).convert(mode).save(data.image(0), **options)


def turned(orientation: int, size: tuple[int, int] = (64, 48)) -> Callable[[Any], None]:
    """Put a JPEG of a stored size in the place of the first image."""

    def spoil(data: Any) -> None:
        rng = np.random.default_rng(1)
        picture = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture.save(data.image(0), format='JPEG', exif=exif)

    return spoil


def copied(index: int, role: str, to: int) -> Callable[[Any], None]:
    """An image has the content of one to train on."""
    return lambda data: shutil.copy(data.image(index), data.image(to, role))


def byte_order_mark(data):
    data.val = b'\xef\xbb\xbf' + json.dumps(data.val).encode()


def ids_with_gaps(data):
    for file in (data.train, data.val):
        file['categories'][2]['id'] = 7
        for annotation in file['annotations']:
            if annotation['category_id'] == 3:
                annotation['category_id'] = 7


def the_same_box_twice(data):
    annotations = data.train['annotations']
    annotations.append({**annotations[0], 'id': 1000})


def class_that_does_not_occur(data):
    for file in (data.train, data.val):
        file['categories'].append(dict(id=4, name='elk'))


def one_class_far_more_frequent(data):
    kept = [a for a in data.train['annotations'] if a['category_id'] != 3 or a['image_id'] == 100]
    more = [{**kept[0], 'id': 1000 + i, 'bbox': [i % 20, i // 20, 9.0, 9.0]} for i in range(100)]
    data.train['annotations'] = kept + more


def file_names_with_the_folder(data):
    for image in data.train['images']:
        image['file_name'] = 'train/' + image['file_name']


def a_truncated_image(data):
    whole = data.image(2).read_bytes()
    data.image(2).write_bytes(whole[: len(whole) // 2])


def a_folder_called_like_an_image(data):
    data.image(2).unlink()
    data.image(2).mkdir()


def another_size_that_the_boxes_need(data):
    Image.open(data.image(0)).resize((16, 12)).save(data.image(0))


def turned_with_the_stored_size_and_loaded_turned(data):
    turned(6)(data)
    data.train['annotations'][0]['bbox'] = [50, 10, 12, 12]


def sixteen_bits(data):
    pixels = np.random.default_rng(0).integers(0, 65536, (48, 64), np.uint16)
    Image.fromarray(pixels).save(data.image(0))


def a_file_that_nobody_lists(data):
    Image.new('RGB', (9, 9)).save(data.root / 'val' / 'other.png')
    (data.root / 'val' / 'notes.txt').write_text('no image')


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


CASES: dict[str, Case] = {
    **{
        f'box: {name}': Case(put(box, 'train', 'annotations', 4, 'bbox'), {code: severity})
        for name, (box, code, severity) in BOXES.items()
    },
    # rounding is no fault
    'box: half a pixel over the edge': case(
        put([50, 2, 14.5, 10], 'train', 'annotations', 4, 'bbox')
    ),
    # the files
    'no_annotation_file': case(content(None), file_missing='fatal'),
    'no_image_folder': case(lambda data: shutil.rmtree(data.root / 'val'), folder_missing='fatal'),
    'broken_off': case(content(b'{"images": [{"id": 1'), json_invalid='fatal'),
    'empty_file': case(content(b''), json_invalid='fatal'),
    'utf_16': case(content('{}'.encode('utf-16')), json_invalid='fatal'),
    'byte_order_mark': case(byte_order_mark, json_bom='fatal'),
    'list_at_the_top': case(content(b'[{"image_id": 1, "bbox": [1, 2, 3, 4]}]'), not_coco='fatal'),
    'no_list_of_categories': case(drop('val', 'categories'), not_coco='fatal'),
    'empty_list_of_images': case(
        put([], 'val', 'images'),
        no_images='fatal',
        val_without_boxes='error',
        image_unknown='error',
        image_orphan='warning',
    ),
    'empty_list_of_categories': case(
        put([], 'val', 'categories'),
        classes=('cat', 'dog', 'owl'),
        no_categories='fatal',
        val_without_boxes='error',
        category_unknown='error',
        class_not_in_data='fatal',
    ),
    'no_annotation_to_train_on': case(
        put([], 'train', 'annotations'),
        no_usable_box='fatal',
        image_without_boxes='info',
        class_without_boxes='warning',
    ),
    'no_annotation_to_validate_on': case(
        put([], 'val', 'annotations'), val_without_boxes='error', image_without_boxes='info'
    ),
    # entries and ids
    'image_with_a_text_id': case(
        put('100', 'val', 'images', 0, 'id'),
        image_malformed='fatal',
        image_unknown='error',
        image_orphan='warning',
    ),
    'image_without_file_name': case(
        drop('val', 'images', 0, 'file_name'),
        image_malformed='fatal',
        image_unknown='error',
        image_orphan='warning',
    ),
    'image_without_size': case(drop('val', 'images', 0, 'width'), image_malformed='fatal'),
    'image_with_negative_size': case(
        put(-48, 'val', 'images', 0, 'height'), image_malformed='fatal'
    ),
    'annotation_without_id': case(
        drop('val', 'annotations', 0, 'id'), annotation_malformed='fatal'
    ),
    'annotation_that_is_a_number': case(
        put(7, 'val', 'annotations', 0), annotation_malformed='fatal'
    ),
    'annotation_with_a_list_for_its_image': case(
        put([100], 'val', 'annotations', 0, 'image_id'), annotation_malformed='fatal'
    ),
    'category_without_name': case(
        put({'id': 1}, 'val', 'categories', 0),
        category_malformed='fatal',
        category_unknown='error',
        category_id_gaps='info',
        categories_differ='fatal',
    ),
    'two_images_with_one_id': case(
        put(100, 'train', 'images', 1, 'id'),
        image_id_duplicate='error',
        image_unknown='error',
        image_without_boxes='info',
    ),
    'two_annotations_with_one_id': case(
        put(1, 'train', 'annotations', 1, 'id'), annotation_id_duplicate='fatal'
    ),
    'two_images_with_one_file': case(
        put('00.png', 'train', 'images', 1, 'file_name'),
        file_name_duplicate='error',
        image_orphan='warning',
    ),
    'two_categories_with_one_id': case(
        put(2, 'both', 'categories', 0, 'id'),
        category_id_duplicate='fatal',
        category_unknown='error',
        category_id_gaps='info',
        class_without_boxes='warning',
    ),
    'two_categories_with_one_name': case(
        put('dog', 'both', 'categories', 0, 'name'), category_name_duplicate='fatal'
    ),
    'ids_with_gaps': case(ids_with_gaps, category_id_gaps='info'),
    'unknown_category': case(
        put(9, 'train', 'annotations', 5, 'category_id'), category_unknown='error'
    ),
    'unknown_image': case(put(9, 'train', 'annotations', 5, 'image_id'), image_unknown='error'),
    # boxes
    'the_same_box_twice': case(the_same_box_twice, box_duplicate='warning'),
    'boxes_as_shares': case(
        boxes(lambda x, y, w, h: [x / 64, y / 48, w / 64, h / 48]), boxes_normalized='fatal'
    ),
    'boxes_as_corners': case(
        boxes(lambda x, y, w, h: [x + 10, y + 10, x + w + 10, y + h + 10]),
        boxes_are_corners='fatal',
        box_partly_outside='warning',
    ),
    'no_area': case(drop('train', 'annotations', 0, 'area'), area_missing='warning'),
    'no_iscrowd': case(drop('train', 'annotations', 0, 'iscrowd'), iscrowd_missing='warning'),
    'crowds': case(put(1, 'train', 'annotations', 0, 'iscrowd'), crowd='info'),
    # classes
    'class_that_the_files_do_not_have': case(
        nothing, classes=('cat', 'dog', 'owl', 'elk'), class_not_in_data='fatal'
    ),
    'category_that_is_no_class': case(
        nothing, classes=('cat', 'dog'), class_not_in_config='warning'
    ),
    'category_without_boxes_that_is_no_class': case(
        keep('both', lambda a: a['category_id'] != 3), classes=('cat', 'dog')
    ),
    'classes_in_another_order': case(nothing, classes=('cat', 'owl', 'dog'), class_order='fatal'),
    'splits_with_other_names': case(
        put('wolf', 'val', 'categories', 1, 'name'), categories_differ='fatal'
    ),
    'class_that_does_not_occur': case(class_that_does_not_occur, class_without_boxes='warning'),
    'class_that_hardly_occurs': case(
        keep('train', lambda a: a['category_id'] != 3 or a['image_id'] < 105), class_rare='warning'
    ),
    'one_class_far_more_frequent': case(
        one_class_far_more_frequent, class_imbalance='info', class_rare='warning'
    ),
    # image files
    'file_names_with_the_folder': case(
        file_names_with_the_folder, no_image_found='fatal', image_orphan='warning'
    ),
    'a_missing_file': case(lambda data: data.image(2).unlink(), image_missing='error'),
    'an_empty_image': case(lambda data: data.image(2).write_bytes(b''), image_unreadable='error'),
    'a_truncated_image': case(a_truncated_image, image_unreadable='error'),
    'text_called_an_image': case(
        lambda data: data.image(2).write_text('<html>404</html>'), image_unreadable='error'
    ),
    'a_folder_called_like_an_image': case(a_folder_called_like_an_image, image_unreadable='error'),
    'another_size': case(put(70, 'train', 'images', 0, 'width'), size_mismatch='error'),
    'another_size_that_the_boxes_need': case(
        another_size_that_the_boxes_need, size_and_boxes_mismatch='error'
    ),
    'turned_with_the_stored_size': case(turned(6), exif_stored='info'),
    'turned_with_the_turned_size': case(turned(6, (48, 64)), exif_turned='error'),
    'turned_with_the_turned_size_and_loaded_so': case(turned(6, (48, 64)), exif_turns=True),
    'turned_with_the_stored_size_and_loaded_turned': case(
        turned_with_the_stored_size_and_loaded_turned,
        exif_turns=True,
        size_and_boxes_mismatch='error',
    ),
    'upside_down': case(turned(3), exif_ambiguous='warning'),
    'sixteen_bits': case(sixteen_bits, image_deep='error'),
    'cmyk': case(saved('CMYK', format='JPEG'), image_cmyk='warning'),
    'transparency': case(saved('RGBA'), image_alpha='warning'),
    'palette_with_transparency': case(saved('P', transparency=0), image_alpha='warning'),
    'palette': case(saved('P'), image_palette='info'),
    'grey': case(saved('L'), image_grayscale='info'),
    'a_file_that_nobody_lists': case(a_file_that_nobody_lists, image_orphan='warning'),
    'an_image_without_boxes': case(
        keep('val', lambda a: a['image_id'] != 100), image_without_boxes='info'
    ),
    'the_same_image_twice': case(copied(1, 'train', 2), image_duplicate='warning'),
    'the_same_content_in_both_splits': case(copied(5, 'val', 1), val_in_train='error'),
    'the_same_file_in_both_splits': case(
        put('../train/01.png', 'val', 'images', 1, 'file_name'),
        val_in_train='error',
        image_orphan='warning',
    ),
    'usual_scales': case(nothing, scales=Scales(48, 96, 200), box_sizes='info'),
    'small_scales': case(
        nothing, scales=Scales(12, 16, 22), box_sizes='info', boxes_tiny='warning'
    ),
    'large_scales': case(
        nothing, scales=Scales(48, 48 * 4, 1000), box_sizes='info', images_enlarged='warning'
    ),
}

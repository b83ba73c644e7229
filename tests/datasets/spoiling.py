"""Ways to spoil a dataset, and what the check must say to each: exactly these codes."""

import json
import math
import os
import shutil
from collections.abc import Callable
from functools import reduce
from operator import getitem
from typing import Any, NamedTuple

from PIL import Image

from mpvit.datasets.check import Scales

CLASSES = ('cat', 'dog', 'owl')  # of the data that is spoiled


class Case(NamedTuple):
    """One way: what changes the dataset in place, all codes that must be found, and nothing else.

    The arguments are those of `check_dataset`.
    """

    spoil: Callable[[Any], object]
    found: str
    arguments: dict[str, Any] = {}


def put(value: Any, role: str, *keys: Any) -> Callable[[Any], None]:
    """Set what lies in a file below the keys."""

    def spoil(data: Any) -> None:
        for name in ('train', 'val') if role == 'both' else (role,):
            reduce(getitem, keys[:-1], getattr(data, name))[keys[-1]] = value

    return spoil


def drop(role: str, *keys: Any) -> Callable[[Any], None]:
    """Remove an entry of a file."""
    return lambda data: reduce(getitem, keys[:-1], getattr(data, role)).pop(keys[-1])


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


def blank(mode: str, size: tuple[int, int] = (64, 48)) -> Callable[[Any], None]:
    """Put a black image in the place of the first."""
    return lambda data: Image.new(mode, size).save(data.image(0))


def turned(orientation: int, size: tuple[int, int] = (64, 48)) -> Callable[[Any], None]:
    """Put a JPEG of a stored size in the place of the first image."""

    def spoil(data: Any) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new('RGB', size).save(data.image(0), format='JPEG', exif=exif)

    return spoil


def narrow(width: int, height: int, stated: bool = True) -> Callable[[Any], None]:
    """Put a narrow image in the place of the first, whose annotations fit it if it is stated."""

    def spoil(data: Any) -> None:
        Image.new('RGB', (width, height)).save(data.image(0))
        if stated:
            data.train['images'][0].update(width=width, height=height)
            for index, annotation in enumerate(data.train['annotations'][:3]):
                annotation['bbox'] = [index, 0, 10, 10]

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


def a_folder_called_like_an_image(data):
    data.image(2).unlink()
    data.image(2).mkdir()


def turned_with_the_stored_size_and_loaded_turned(data):
    turned(6)(data)
    data.train['annotations'][0]['bbox'] = [50, 10, 12, 12]


def a_folder_beyond_reach(data):
    """Below a path that is longer than the system allows, also for root."""
    handle = os.open(data.root / 'train', os.O_RDONLY)
    for _ in range(17):
        os.mkdir('x' * 250, dir_fd=handle)
        handle, above = os.open('x' * 250, os.O_RDONLY, dir_fd=handle), handle
        os.close(above)
    os.close(handle)


def a_file_that_nobody_lists(data):
    Image.new('RGB', (9, 9)).save(data.root / 'val' / 'other.png')
    (data.root / 'val' / 'notes.txt').write_text('no image')


BOXES = {
    'three numbers': ([1, 2, 3], 'box-malformed'),
    'five numbers': ([1, 2, 3, 4, 5], 'box-malformed'),
    'text': (['1', '2', '3', '4'], 'box-malformed'),
    'null within': ([1, None, 3, 4], 'box-malformed'),
    'null': (None, 'box-malformed'),
    'object': ({'x': 1}, 'box-malformed'),
    'nan': ([1, math.nan, 3, 4], 'box-not-finite'),
    'infinity': ([1, 2, math.inf, 4], 'box-not-finite'),
    'too large for a float': ([1, 2, 10**400, 4], 'box-not-finite'),
    'zero width': ([1, 2, 0, 4], 'box-no-area'),
    'negative height': ([10, 20, 5, -4], 'box-no-area'),
    'right of the image': ([64, 2, 10, 10], 'box-outside'),
    'above the image': ([5, -20, 10, 10], 'box-outside'),
    'over the left edge': ([-5, 2, 20, 10], 'box-partly-outside'),
    'over the lower edge': ([5, 40, 10, 20], 'box-partly-outside'),
}


CASES = {
    **{
        f'box: {name}': Case(put(box, 'train', 'annotations', 4, 'bbox'), code)
        for name, (box, code) in BOXES.items()
    },
    'nothing': Case(nothing, '', dict(classes=CLASSES)),
    # rounding is no fault
    'box: half a pixel over the edge': Case(
        put([50, 2, 14.5, 10], 'train', 'annotations', 4, 'bbox'), ''
    ),
    # the files
    'no_annotation_file': Case(content(None), 'file-missing'),
    'no_image_folder': Case(lambda data: shutil.rmtree(data.root / 'val'), 'folder-missing'),
    'broken_off': Case(content(b'{"images": [{"id": 1'), 'json-invalid'),
    'empty_file': Case(content(b''), 'json-invalid'),
    'utf_16': Case(content('{}'.encode('utf-16')), 'json-invalid'),
    'byte_order_mark': Case(byte_order_mark, 'json-bom'),
    'list_at_the_top': Case(content(b'[{"image_id": 1, "bbox": [1, 2, 3, 4]}]'), 'not-coco'),
    'no_list_of_categories': Case(drop('val', 'categories'), 'not-coco'),
    'empty_list_of_images': Case(
        put([], 'val', 'images'), 'no-images val-without-boxes image-unknown image-orphan'
    ),
    'empty_list_of_categories': Case(
        put([], 'val', 'categories'),
        'no-categories val-without-boxes category-unknown',
        dict(classes=CLASSES),
    ),
    'no_annotation_to_train_on': Case(
        put([], 'train', 'annotations'), 'no-usable-box image-without-boxes class-without-boxes'
    ),
    'no_annotation_to_validate_on': Case(
        put([], 'val', 'annotations'), 'val-without-boxes image-without-boxes'
    ),
    # entries and ids
    'image_with_a_text_id': Case(
        put('100', 'val', 'images', 0, 'id'), 'image-malformed image-unknown image-orphan'
    ),
    'image_without_file_name': Case(
        drop('val', 'images', 0, 'file_name'), 'image-malformed image-unknown image-orphan'
    ),
    'image_without_size': Case(drop('val', 'images', 0, 'width'), 'image-malformed'),
    'image_with_negative_size': Case(put(-48, 'val', 'images', 0, 'height'), 'image-malformed'),
    'annotation_without_id': Case(drop('val', 'annotations', 0, 'id'), 'annotation-malformed'),
    'annotation_that_is_a_number': Case(put(7, 'val', 'annotations', 0), 'annotation-malformed'),
    'annotation_with_a_list_for_its_image': Case(
        put([100], 'val', 'annotations', 0, 'image_id'), 'annotation-malformed'
    ),
    'image_with_an_id_beyond_64_bits': Case(
        put(2**63, 'val', 'images', 0, 'id'), 'image-malformed image-unknown image-orphan'
    ),
    'image_with_half_a_letter_in_its_name': Case(
        put('\ud800.png', 'val', 'images', 0, 'file_name'),
        'image-malformed image-unknown image-orphan',
    ),
    'image_with_an_infinite_size': Case(
        put(10**400, 'val', 'images', 0, 'width'), 'image-malformed'
    ),
    'image_with_a_size_beyond_float32': Case(
        put(1e39, 'val', 'images', 0, 'width'), 'image-malformed'
    ),
    'annotation_ignored_by_text': Case(
        put('false', 'train', 'annotations', 0, 'ignore'), 'annotation-malformed'
    ),
    'annotation_that_is_a_crowd_of_two': Case(
        put(2, 'train', 'annotations', 0, 'iscrowd'), 'annotation-malformed'
    ),
    'category_without_name': Case(
        put({'id': 1}, 'val', 'categories', 0),
        'category-malformed category-unknown category-id-gaps categories-differ',
    ),
    'two_images_with_one_id': Case(
        put(100, 'train', 'images', 1, 'id'), 'image-id-duplicate image-unknown image-without-boxes'
    ),
    'two_annotations_with_one_id': Case(
        put(1, 'train', 'annotations', 1, 'id'), 'annotation-id-duplicate'
    ),
    'two_images_with_one_file': Case(
        put('00.png', 'train', 'images', 1, 'file_name'), 'file-name-duplicate image-orphan'
    ),
    'two_categories_with_one_id': Case(
        put(2, 'both', 'categories', 0, 'id'),
        'category-id-duplicate category-unknown category-id-gaps class-without-boxes',
    ),
    'two_categories_with_one_name': Case(
        put('dog', 'both', 'categories', 0, 'name'), 'category-name-duplicate'
    ),
    'ids_with_gaps': Case(ids_with_gaps, 'category-id-gaps'),
    'unknown_category': Case(put(9, 'train', 'annotations', 5, 'category_id'), 'category-unknown'),
    'unknown_image': Case(put(9, 'train', 'annotations', 5, 'image_id'), 'image-unknown'),
    # boxes
    'the_same_box_twice': Case(the_same_box_twice, 'box-duplicate'),
    'boxes_as_shares': Case(
        boxes(lambda x, y, w, h: [x / 64, y / 48, w / 64, h / 48]), 'boxes-normalized'
    ),
    'boxes_as_corners': Case(
        boxes(lambda x, y, w, h: [x + 10, y + 10, x + w + 10, y + h + 10]),
        'boxes-are-corners box-partly-outside',
    ),
    'no_area': Case(drop('train', 'annotations', 0, 'area'), 'area-missing'),
    'no_iscrowd': Case(drop('train', 'annotations', 0, 'iscrowd'), 'iscrowd-missing'),
    'crowds': Case(put(1, 'train', 'annotations', 0, 'iscrowd'), 'crowd'),
    'ignored': Case(put(True, 'train', 'annotations', 0, 'ignore'), 'ignored'),
    'ignored_in_validation': Case(put(1, 'val', 'annotations', 0, 'ignore'), ''),
    'all_ignored': Case(
        lambda data: [a.update(ignore=1) for a in data.train['annotations']],
        'no-usable-box ignored class-without-boxes',
    ),
    'no_image_left_by_the_filter': Case(
        nothing, 'no-usable-box', dict(filter_cfg=dict(min_size=49))
    ),
    # classes
    'class_without_a_box_alone': Case(
        keep('both', lambda a: a['category_id'] != 3),
        'no-usable-box val-without-boxes class-without-boxes class-not-in-config',
        dict(classes=('owl',)),
    ),
    'class_that_the_files_do_not_have': Case(
        nothing, 'class-not-in-data', dict(classes=(*CLASSES, 'elk'))
    ),
    'category_that_is_no_class': Case(nothing, 'class-not-in-config', dict(classes=('cat', 'dog'))),
    'category_without_boxes_that_is_no_class': Case(
        keep('both', lambda a: a['category_id'] != 3), '', dict(classes=('cat', 'dog'))
    ),
    'classes_in_another_order': Case(nothing, 'class-order', dict(classes=('cat', 'owl', 'dog'))),
    'splits_with_other_names': Case(
        put('wolf', 'val', 'categories', 1, 'name'), 'categories-differ'
    ),
    'class_that_does_not_occur': Case(class_that_does_not_occur, 'class-without-boxes'),
    'class_that_hardly_occurs': Case(
        keep('train', lambda a: a['category_id'] != 3 or a['image_id'] < 105), 'class-rare'
    ),
    'one_class_far_more_frequent': Case(one_class_far_more_frequent, 'class-imbalance class-rare'),
    # image files
    'file_names_with_the_folder': Case(file_names_with_the_folder, 'no-image-found image-orphan'),
    'a_missing_file': Case(lambda data: data.image(2).unlink(), 'image-missing'),
    'an_empty_image': Case(lambda data: data.image(2).write_bytes(b''), 'image-unreadable'),
    'a_truncated_image': Case(
        lambda data: data.image(2).write_bytes(data.image(2).read_bytes()[:4000]),
        'image-unreadable',
    ),
    'text_called_an_image': Case(
        lambda data: data.image(2).write_text('<html>404</html>'), 'image-unreadable'
    ),
    'a_folder_called_like_an_image': Case(a_folder_called_like_an_image, 'image-unreadable'),
    'an_image_too_narrow_to_resize': Case(
        narrow(20000, 10, stated=False), 'image-narrow size-and-boxes-mismatch'
    ),
    'an_image_narrow_for_these_scales': Case(
        narrow(3000, 10), 'image-narrow box-sizes', dict(scales=Scales(128, 128, 128))
    ),
    'another_size': Case(put(70, 'train', 'images', 0, 'width'), 'size-mismatch'),
    'another_size_that_the_boxes_need': Case(blank('RGB', (16, 12)), 'size-and-boxes-mismatch'),
    'turned_with_the_stored_size': Case(turned(6), 'exif-stored'),
    'turned_with_the_turned_size': Case(turned(6, (48, 64)), 'exif-turned'),
    'turned_with_the_turned_size_and_loaded_so': Case(
        turned(6, (48, 64)), '', dict(exif_turns=True)
    ),
    'turned_with_the_stored_size_and_loaded_turned': Case(
        turned_with_the_stored_size_and_loaded_turned,
        'size-and-boxes-mismatch',
        dict(exif_turns=True),
    ),
    'upside_down': Case(turned(3), 'exif-ambiguous'),
    'sixteen_bits': Case(blank('I;16'), 'image-deep'),
    'cmyk': Case(saved('CMYK', format='JPEG'), 'image-cmyk'),
    'transparency': Case(saved('RGBA'), 'image-alpha'),
    'palette_with_transparency': Case(saved('P', transparency=0), 'image-alpha'),
    'palette': Case(saved('P'), 'image-palette'),
    'grey': Case(saved('L'), 'image-grayscale'),
    'a_file_that_nobody_lists': Case(a_file_that_nobody_lists, 'image-orphan'),
    'a_folder_beyond_reach': Case(a_folder_beyond_reach, 'folder-unreadable'),
    'an_image_without_boxes': Case(
        keep('val', lambda a: a['image_id'] != 100), 'image-without-boxes'
    ),
    'the_same_image_twice': Case(copied(1, 'train', 2), 'image-duplicate'),
    'the_same_content_in_both_splits': Case(copied(5, 'val', 1), 'val-in-train'),
    'the_same_file_in_both_splits': Case(
        put('../train/01.png', 'val', 'images', 1, 'file_name'), 'val-in-train image-orphan'
    ),
    'usual_scales': Case(nothing, 'box-sizes', dict(scales=Scales(48, 96, 200))),
    'small_scales': Case(nothing, 'box-sizes boxes-tiny', dict(scales=Scales(12, 16, 22))),
    'large_scales': Case(
        nothing, 'box-sizes images-enlarged', dict(scales=Scales(48, 48 * 4, 1000))
    ),
}

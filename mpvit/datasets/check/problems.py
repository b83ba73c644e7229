"""What a problem is, and the table of all that are looked for."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mpvit.errors import UserError

Severity = Literal['fatal', 'error', 'warning', 'info']

#: The worst first, with what each of them means.
SEVERITIES: dict[Severity, str] = {
    'fatal': 'training would stop, or learn nothing that is meant; `tools/train.py` refuses',
    'error': 'images or boxes are lost or wrong, or the evaluation means nothing',
    'warning': 'training works, but this is probably not meant',
    'info': 'worth knowing',
}


@dataclass(frozen=True)
class Check:
    """One thing that is looked for.

    Attributes:
        severity: How bad it is.
        meaning: What it says about the data.
        fix: What to do.
        repaired: `repair` takes care of it.
    """

    severity: Severity
    meaning: str
    fix: str
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that was found.

    Attributes:
        severity: How bad it is, a key of `SEVERITIES`.
        code: What it is, a key of `CHECKS`.
        message: What is wrong, with the values.
        file: Annotation file, image or folder.
        image_id: Id of the image, where it is about one.
        annotation_id: Id of the annotation, where it is about one.
        fix: What to do.
    """

    severity: Severity
    code: str
    message: str
    file: str
    image_id: int | None
    annotation_id: int | None
    fix: str


def problem(
    code: str,
    message: str,
    file: str,
    image_id: int | None = None,
    annotation_id: int | None = None,
) -> Problem:
    """A problem with the severity and the fix of its code."""
    check = CHECKS[code]
    return Problem(check.severity, code, message, file, image_id, annotation_id, check.fix)


def refuse_fatal(problems: Iterable[Problem]) -> None:
    """Refuse to go on where something fatal was found.

    Args:
        problems: From `check_dataset`.

    Raises:
        UserError: With one line for every kind of fatal problem: the first of the kind, and how
            many there are.
    """
    fatal = [found for found in problems if found.severity == 'fatal']
    count = Counter((found.code, found.file) for found in fatal)
    first = {(found.code, found.file): found for found in reversed(fatal)}
    lines = []
    for key in count:
        found = first[key]
        more = f' (and {count[key] - 1} more like it)' if count[key] > 1 else ''
        lines.append(f'{found.file}: {found.message}{more}; {found.fix} [{found.code}]')
    if lines:
        raise UserError(*lines)


_FIX = 'write a repaired copy with `tools/check_dataset.py --fix`'
_EXPORT = 'export the annotations again, in COCO format'
_CLASSES = "set `classes` to the names in the file's order (docs/data.md)"

#: Everything that is looked for, by code.
CHECKS: dict[str, Check] = {
    # the files
    'file-missing': Check('fatal', 'there is no such annotation file', 'name the right file'),
    'folder-missing': Check('fatal', 'there is no such image folder', 'name the right folder'),
    'json-invalid': Check('fatal', 'the file is no JSON, or broken off', _EXPORT),
    'json-bom': Check(
        'fatal', 'a byte order mark stands before the JSON; readers stop at it', _FIX, True
    ),
    'not-coco': Check(
        'fatal', 'valid JSON, but without the lists `images`, `annotations`, `categories`', _EXPORT
    ),
    'no-images': Check('fatal', 'the list of images is empty', _EXPORT),
    'no-categories': Check('fatal', 'the list of categories is empty', _EXPORT),
    'no-usable-box': Check(
        'fatal',
        'training data without a single valid box of a known class in a known image',
        'see the other problems of this file',
    ),
    'val-without-boxes': Check(
        'error',
        'validation data without a usable box; every AP is -1',
        'annotate the validation images',
    ),
    # entries and ids
    'image-malformed': Check(
        'fatal', 'an image without integer `id`, `file_name`, or positive size', _FIX, True
    ),
    'annotation-malformed': Check(
        'fatal', 'an annotation without integer `id`, `image_id` or `category_id`', _FIX, True
    ),
    'category-malformed': Check('fatal', 'a category without integer `id` or `name`', _EXPORT),
    'image-id-duplicate': Check(
        'error',
        'two images with the same id; one is lost, and the other has the boxes of both',
        'give each image an id of its own; `--fix` removes the images whose boxes cannot be told '
        'apart',
        True,
    ),
    'annotation-id-duplicate': Check(
        'fatal', 'two annotations with the same id; mmdet refuses the file', _FIX, True
    ),
    'file-name-duplicate': Check(
        'error', 'two images with the same file, each with a part of its boxes', _FIX, True
    ),
    'category-id-duplicate': Check(
        'fatal', 'two categories with the same id', 'give each category an id of its own'
    ),
    'category-name-duplicate': Check(
        'fatal',
        'two categories with the same name; they would share one label',
        'rename one, or give the boxes of both one id',
    ),
    'category-id-gaps': Check(
        'info', 'category ids are not 1, 2, 3, ...; that is allowed', 'nothing to do'
    ),
    'category-unknown': Check(
        'error',
        'an annotation whose category is not in the list; it is left out silently',
        'add the category, or drop the annotation with `--fix`',
        True,
    ),
    'image-unknown': Check(
        'error',
        'an annotation whose image is not in the list; it is left out silently',
        'add the image, or drop the annotation with `--fix`',
        True,
    ),
    # boxes
    'box-malformed': Check('fatal', '`bbox` is missing or not four numbers', _FIX, True),
    'box-not-finite': Check('fatal', 'NaN or infinity in a box; training stops at it', _FIX, True),
    'box-no-area': Check(
        'error',
        'a box with a width or height of 0 or less; it is left out silently',
        'boxes are [x, y, width, height]; correct it, or drop it with `--fix`',
        True,
    ),
    'box-outside': Check(
        'error',
        'a box wholly outside its image; it is left out silently',
        'correct it, or drop it with `--fix`',
        True,
    ),
    'box-partly-outside': Check(
        'warning',
        'a box more than one pixel beyond its image; it is clipped while reading',
        _FIX,
        True,
    ),
    'box-duplicate': Check(
        'warning', 'the same box of the same class twice in an image', _FIX, True
    ),
    'boxes-normalized': Check(
        'fatal',
        'all boxes lie in [0, 1]; pixels are expected',
        'multiply by the width and height of the image',
    ),
    'boxes-are-corners': Check(
        'fatal',
        'boxes reach out of their images, but would fit as [x1, y1, x2, y2]',
        'convert them to [x, y, width, height]',
    ),
    'area-missing': Check(
        'warning', 'no `area`, which many tools need; the area of the box is used here', _FIX, True
    ),
    'iscrowd-missing': Check(
        'warning', 'no `iscrowd`, which many tools need; taken as 0 here', _FIX, True
    ),
    'crowd': Check(
        'info',
        'boxes of groups (`iscrowd`); detectors do not train on them, and detections in them do '
        'not count',
        'nothing to do',
    ),
    # classes
    'class-not-in-data': Check(
        'fatal', 'a class of the config that the file does not have', _CLASSES
    ),
    'class-not-in-config': Check(
        'warning',
        'a category that is no class of the config; its boxes are left out silently',
        'add it to `classes` if it is meant to be learned',
    ),
    'class-order': Check(
        'fatal', 'the config has the classes in another order than the file', _CLASSES
    ),
    'categories-differ': Check(
        'fatal',
        'training and validation have other category names, or another order',
        'write both files with the same list of categories',
    ),
    'class-without-boxes': Check(
        'warning',
        'a category without a usable box in the training data; it cannot be learned. Roboflow '
        'writes such a category 0',
        'annotate it, or take it out of `classes`',
    ),
    'class-rare': Check(
        'warning', 'a class with fewer than 10 usable boxes in the training data', 'annotate more'
    ),
    'class-imbalance': Check(
        'info',
        'the most frequent class has more than 100 times the boxes of the rarest',
        'look at the AP of each class (`tools/test.py --classwise`)',
    ),
    # image files
    'no-image-found': Check(
        'fatal',
        'not one of the images looked at is there and can be read',
        'name the folder to which the `file_name`s are relative',
    ),
    'image-missing': Check(
        'error',
        'there is no such file; training stops when it is its turn',
        'put it there, or drop it and its boxes with `--fix`',
        True,
    ),
    'image-unreadable': Check(
        'error',
        'empty, truncated, damaged, or no image at all; training stops when it is its turn',
        'copy it again, or drop it and its boxes with `--fix`',
        True,
    ),
    'size-mismatch': Check(
        'error',
        'the stated size is not that of the file; the boxes fit into the file',
        _FIX,
        True,
    ),
    'size-and-boxes-mismatch': Check(
        'error',
        'the stated size is not that of the file, and the boxes do not fit into the file',
        'bring the file or the boxes to the same resolution',
    ),
    'exif-turned': Check(
        'error',
        'EXIF turns the image, and the stated size is that after turning; it is loaded unturned, '
        'so its boxes are wrong',
        'load images with `color_type=color` (docs/data.md), or turn the files for good',
    ),
    'exif-ambiguous': Check(
        'warning',
        'EXIF turns or mirrors the image without changing its size; it is loaded unturned',
        'see whether its boxes fit (`--picture`); if they do not, load with `color_type=color`',
    ),
    'exif-stored': Check(
        'info',
        'EXIF turns the image, but the stated size is that of the stored pixels, as it is loaded',
        'nothing to do',
    ),
    'image-deep': Check(
        'error',
        'one channel of 16 or 32 bits; what is above 255 becomes white',
        'convert it to 8 bits',
    ),
    'image-cmyk': Check(
        'warning',
        'CMYK; colours are converted without a profile',
        'convert it to RGB',
    ),
    'image-alpha': Check(
        'warning',
        'transparency; it is thrown away, and what was hidden shows',
        'convert it to RGB on the background that you want',
    ),
    'image-palette': Check('info', 'a palette image; it becomes RGB', 'nothing to do'),
    'image-grayscale': Check(
        'info', 'a grey image; it becomes RGB with equal channels', 'nothing to do'
    ),
    'image-orphan': Check(
        'warning',
        'an image in the folder that no annotation file lists',
        'annotate it, or move it away; nothing to do if it is meant',
    ),
    'image-without-boxes': Check(
        'info',
        'images without boxes; they are trained on as background',
        'nothing to do if there is nothing in them',
    ),
    'image-duplicate': Check(
        'warning',
        'the same file content under several names in one split',
        'keep one of them',
    ),
    'val-in-train': Check(
        'error',
        'an image of the validation data that also stands in the training data (the same file, '
        'or the same content)',
        'take it out of one of them; the AP is too high otherwise',
    ),
    # sizes against the scales of the config
    'box-sizes': Check('info', 'sizes of the boxes after resizing', 'nothing to do'),
    'boxes-tiny': Check(
        'warning',
        'a tenth or more of the boxes is under 8 pixels (side of a square of the same area) after '
        'resizing, the finest stride of the detector',
        'train on larger scales, or cut the images into tiles',
    ),
    'images-enlarged': Check(
        'warning',
        'images that resizing enlarges more than 3 times',
        'train on smaller scales, which is faster and hardly worse',
    ),
}

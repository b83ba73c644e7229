"""What a problem is, and the table of all that are looked for."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mpvit.errors import UserError

Severity = Literal['fatal', 'error', 'warning', 'info']

#: The worst first, with what each of them means.
SEVERITIES: dict[Severity, str] = {
    'fatal': 'training would stop or learn the wrong thing; `mpvit train` refuses the data',
    'error': 'images or boxes are lost or wrong, or the evaluation has no meaning',
    'warning': 'training works, but you probably did not mean this',
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


def size_text(size: Iterable[float]) -> str:
    """A width and height as text."""
    return 'x'.join(f'{side:g}' for side in size)


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


_FIX = 'repair it with `mpvit check_dataset --fix`'
_EXPORT = 'export the annotations again as COCO'
_CLASSES = "list `classes` in the file's order (docs/data.md)"
_NOTHING = 'nothing to do'

#: Everything that is looked for, by code. What `repair` can do names `--fix`.
CHECKS: dict[str, Check] = {
    # the files
    'file-missing': Check('fatal', 'the annotation file does not exist', 'name the right file'),
    'folder-missing': Check('fatal', 'the image folder does not exist', 'name the right folder'),
    'json-invalid': Check('fatal', 'the file is not valid JSON, or it is cut off', _EXPORT),
    'json-bom': Check(
        'fatal', 'the file starts with a byte order mark, which readers refuse', _FIX, True
    ),
    'not-coco': Check(
        'fatal', 'the file lacks the lists `images`, `annotations` and `categories`', _EXPORT
    ),
    'no-images': Check('fatal', 'the list of images is empty', _EXPORT),
    'no-categories': Check('fatal', 'the list of categories is empty', _EXPORT),
    'no-usable-box': Check(
        'fatal',
        'no training box is valid, with a listed image and class',
        'see the other problems of this file',
    ),
    'val-without-boxes': Check(
        'error',
        'the validation data have no valid box, so AP is -1',
        'annotate the validation images',
    ),
    # entries and ids
    'image-malformed': Check(
        'fatal', 'an image lacks an integer `id`, a `file_name` or a positive size', _FIX, True
    ),
    'annotation-malformed': Check(
        'fatal', 'an annotation lacks an integer `id`, `image_id` or `category_id`', _FIX, True
    ),
    'category-malformed': Check('fatal', 'a category lacks an integer `id` or a `name`', _EXPORT),
    'image-id-duplicate': Check(
        'error',
        'two images have one id, so their boxes are mixed up',
        'number the images anew; `--fix` drops images whose boxes are unclear',
        True,
    ),
    'annotation-id-duplicate': Check(
        'fatal', 'two annotations have one id, which mmdet refuses', _FIX, True
    ),
    'file-name-duplicate': Check(
        'error', 'two entries name one image file, each with some of the boxes', _FIX, True
    ),
    'category-id-duplicate': Check(
        'fatal', 'two categories have one id', 'give each category its own id'
    ),
    'category-name-duplicate': Check(
        'fatal', 'two categories have one name', 'rename one, or merge them'
    ),
    'category-id-gaps': Check(
        'info', 'the category ids are not 1, 2, 3, ..., which is allowed', _NOTHING
    ),
    'category-unknown': Check(
        'error',
        'an annotation has an unlisted category and is ignored',
        'add the category, or drop the annotation with `--fix`',
        True,
    ),
    'image-unknown': Check(
        'error',
        'an annotation belongs to an unlisted image and is ignored',
        'add the image, or drop the annotation with `--fix`',
        True,
    ),
    # boxes
    'box-malformed': Check('fatal', '`bbox` is missing or not four numbers', _FIX, True),
    'box-not-finite': Check(
        'fatal', 'a box contains NaN or infinity, which stops training', _FIX, True
    ),
    'box-no-area': Check(
        'error',
        'a box has no width or no height and is ignored',
        'write boxes as [x, y, width, height], or drop this one with `--fix`',
        True,
    ),
    'box-outside': Check(
        'error',
        'a box lies outside its image and is ignored',
        'correct the box, or drop it with `--fix`',
        True,
    ),
    'box-partly-outside': Check(
        'warning', 'a box reaches more than one pixel out of its image and is clipped', _FIX, True
    ),
    'box-duplicate': Check(
        'warning', 'an image has the same box of the same class twice', _FIX, True
    ),
    'boxes-normalized': Check(
        'fatal',
        'all boxes lie in [0, 1] instead of in pixels',
        'multiply them by the width and height of the image',
    ),
    'boxes-are-corners': Check(
        'fatal',
        'the boxes fit their images only as [x1, y1, x2, y2]',
        'convert them to [x, y, width, height]',
    ),
    'area-missing': Check('warning', '`area` is missing; that of the box is used', _FIX, True),
    'iscrowd-missing': Check('warning', '`iscrowd` is missing; 0 is used', _FIX, True),
    'crowd': Check(
        'info', 'boxes of groups (`iscrowd`) are neither trained on nor counted', _NOTHING
    ),
    # classes
    'class-not-in-data': Check('fatal', 'the file lacks a class of the config', _CLASSES),
    'class-not-in-config': Check(
        'warning',
        'the config lacks a category, whose boxes are ignored',
        'add the category to `classes` if you want it',
    ),
    'class-order': Check(
        'fatal', 'the config and the file list the classes in different orders', _CLASSES
    ),
    'categories-differ': Check(
        'fatal',
        'training and validation list different categories',
        'write both files with the same list of categories',
    ),
    'class-without-boxes': Check(
        'warning',
        'a category has no valid box to learn from (like the category 0 of Roboflow)',
        'annotate it, or remove it from `classes`',
    ),
    'class-rare': Check(
        'warning', 'a class has fewer than 10 valid boxes in training', 'annotate more'
    ),
    'class-imbalance': Check(
        'info',
        'the most frequent class has over 100 times the boxes of the rarest',
        'look at the AP of each class (`mpvit test --classwise`)',
    ),
    # image files
    'no-image-found': Check(
        'fatal',
        'no image could be found and read',
        'name the folder that the `file_name`s are relative to',
    ),
    'image-missing': Check(
        'error',
        'the image does not exist, which will stop training',
        'add the image, or drop it with `--fix`',
        True,
    ),
    'image-unreadable': Check(
        'error',
        'the image is empty, damaged or of an unknown format, which will stop training',
        'copy the image again, or drop it with `--fix`',
        True,
    ),
    'size-mismatch': Check(
        'error', 'the stated size is wrong, but the boxes fit the image', _FIX, True
    ),
    'size-and-boxes-mismatch': Check(
        'error',
        'the stated size is wrong, and the boxes do not fit the image',
        'bring image and boxes to one resolution',
    ),
    'exif-turned': Check(
        'error',
        'the boxes belong to the image as rotated by EXIF, but it is loaded unrotated',
        'load with `color_type=color` (docs/data.md), or rotate the files',
    ),
    'exif-ambiguous': Check(
        'warning',
        'EXIF rotates or mirrors the image within the same size, but it is loaded unrotated',
        'look at the boxes (`--picture`); if they do not fit, load with `color_type=color`',
    ),
    'exif-stored': Check(
        'info', 'EXIF rotates the image, but the stated size is that of the stored pixels', _NOTHING
    ),
    'image-deep': Check(
        'error',
        'the image has 16 or 32 bits, so values above 255 become white',
        'convert it to 8 bits',
    ),
    'image-cmyk': Check(
        'warning',
        'the image is CMYK and is converted without a colour profile',
        'convert it to RGB',
    ),
    'image-alpha': Check(
        'warning',
        'transparency is dropped, so hidden pixels appear',
        'convert it to RGB on a background',
    ),
    'image-palette': Check('info', 'the image has a palette and becomes RGB', _NOTHING),
    'image-grayscale': Check('info', 'the image is grey and becomes RGB', _NOTHING),
    'image-orphan': Check(
        'warning', 'no annotation file lists this image', 'annotate or move it, unless it is meant'
    ),
    'image-without-boxes': Check(
        'info', 'images without boxes are trained on as background', _NOTHING
    ),
    'image-duplicate': Check(
        'warning', 'two images of a split have the same content', 'keep one of them'
    ),
    'val-in-train': Check(
        'error',
        'a validation image is also a training image, so AP is too high',
        'remove it from one of them',
    ),
    # sizes against the scales of the config
    'box-sizes': Check('info', 'the sizes of the boxes after resizing', _NOTHING),
    'boxes-tiny': Check(
        'warning',
        'a tenth of the boxes is under 8 pixels after resizing, the finest stride of the detector',
        'train on larger scales, or cut the images into tiles',
    ),
    'images-enlarged': Check(
        'warning',
        'resizing enlarges these images more than 3 times',
        'train on smaller scales, which is faster',
    ),
}

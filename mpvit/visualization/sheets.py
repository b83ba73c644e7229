"""Contact sheets: many images on one picture."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mpvit.evaluation.analysis import analyse
from mpvit.evaluation.error_types import ERROR_TYPES
from mpvit.evaluation.result_files import read_results
from mpvit.visualization.charts import ERROR_NAMES
from mpvit.visualization.photos import Photos, font
from mpvit.visualization.style import shortened

_GAP = 10  # pixels between pictures
_LINE = 16  # pixels of a line of text
_CROP = 160  # pixels
LEGEND = (
    'Solid: found; dashed with ✗: wrong; white, dashed: missed. Detections from a score of {:g} on.'
)


def contact_sheet(
    annotations: str | os.PathLike[str],
    detections: str | os.PathLike[str],
    images: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    count: int = 24,
    columns: int = 6,
    threshold: float = 0.3,
) -> Path:
    """Draw images with what was found, what was wrong and what was missed.

    Args:
        annotations: Ground truth in COCO format.
        detections: Detections in COCO result format.
        images: Folder of the images.
        target: Picture to write, .png or .jpg.
        count: Images to draw, taken evenly from the whole set.
        columns: Images in a row.
        threshold: Lowest score drawn, in [0, 1].

    Returns:
        The file.

    Raises:
        UserError: A file cannot be read, or they do not belong together.
    """
    analysis = analyse(read_results(annotations, detections, images), threshold)
    total = len(analysis.results.files)
    chosen = np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()
    sheet = image_sheet(Photos(analysis, 280), chosen, '', columns)
    sheet.save(target)
    return Path(target)


def image_sheet(photos: Photos, images: Sequence[int], title: str, columns: int = 4) -> Image.Image:
    """Images with their boxes and counts on one sheet.

    Args:
        photos: The images of an analysis.
        images: Which of them.
        title: Line at the top, before the explanation of the boxes.
        columns: Images in a row.
    """
    legend = LEGEND.format(photos.analysis.threshold)
    pictures = [photos.picture(image) for image in images]
    captions = [
        f'{shortened(photos.analysis.results.files[image].name, 36)}\n{photos.caption(image)}'
        for image in images
    ]
    return _composed(pictures, captions, columns, photos.side, f'{title}  {legend}'.strip())


def mistake_sheet(whole: Photos, count: int = 8) -> Image.Image:
    """The errors with the highest scores, a row for each kind.

    Args:
        whole: The images of an analysis.
        count: Errors of each kind at most.
    """
    photos = Photos(whole.analysis, _CROP)
    pictures: list[Image.Image | None] = []
    captions = []
    for kind in ERROR_TYPES:
        row = list(photos.mistakes(kind, count))
        if not row:
            continue
        empty = count - len(row)
        pictures += [mistake.picture for mistake in row] + [None] * empty
        captions += [
            f'{ERROR_NAMES[kind] if place == 0 else ""}\n{shortened(mistake.caption, 28)}'
            for place, mistake in enumerate(row)
        ] + [''] * empty
    whole.unreadable += photos.unreadable
    title = (
        'The wrong detections with the highest scores (solid; white, dashed: the object) '
        'and the largest missed objects'
    )
    return _composed(pictures, captions, count, _CROP, title)


def _composed(
    pictures: Sequence[Image.Image | None],
    captions: Sequence[str],
    columns: int,
    side: int,
    title: str,
) -> Image.Image:
    columns = max(1, min(columns, len(pictures)))
    rows = -(-len(pictures) // columns)
    cell = (side + _GAP, side + 2 * _LINE + _GAP)
    head = _LINE + 2 * _GAP
    width = max(columns * cell[0] + _GAP, int(font(13).getlength(title)) + 2 * _GAP)
    sheet = Image.new('RGB', (width, head + max(rows * cell[1], 2 * _LINE)), 'white')
    canvas = ImageDraw.Draw(sheet)
    canvas.text((_GAP, _GAP), title, 'black', font(13))
    if not pictures:
        canvas.text((_GAP, head), 'There are none.', 'black', font(13))
    for place, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x = _GAP + place % columns * cell[0]
        y = head + place // columns * cell[1]
        canvas.multiline_text((x, y), caption, 'black', font(11), spacing=3)
        if picture is not None:
            sheet.paste(picture, (x, y + 2 * _LINE))
    return sheet

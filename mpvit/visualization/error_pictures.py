"""All pictures of an analysis, written to a folder."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from mpvit.evaluation.analysis import Analysis
from mpvit.visualization import charts
from mpvit.visualization.photos import Photos
from mpvit.visualization.sheets import image_sheet, mistake_sheet
from mpvit.visualization.style import save, writing

CHARTS = {
    'precision_recall': charts.precision_recall,
    'ap_per_class': charts.ap_per_class,
    'ap_by_size': charts.ap_by_size,
    'error_types': charts.error_chart,
    'threshold': charts.threshold_chart,
    'confusion_matrix': charts.confusion_matrix,
}


def draw_errors(
    analysis: Analysis, folder: Path, *, suffix: str = '.png', count: int = 12
) -> Iterator[Path]:
    """Write the charts, the worst and best images, the worst mistakes, and all numbers.

    Args:
        analysis: Of the detections.
        folder: Where to write; it need not exist.
        suffix: Format of the charts: .png, .svg or .pdf; images are always .jpg.
        count: Images on a sheet, and mistakes of each kind, of these 10 at most.

    Yields:
        The files, each when it is written. Image files that could not be read are drawn as blanks.
    """
    numbers = folder / 'errors.json'
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(analysis.as_record(), indent=1, ensure_ascii=False) + '\n'
        numbers.write_text(text, encoding='utf-8')
    yield numbers
    for name, draw in CHARTS.items():
        yield save(draw(analysis), folder / f'{name}{suffix}')
    photos = Photos(analysis)
    for name, images in (
        ('worst', analysis.images.worst(count)),
        ('best', analysis.images.best(count)),
    ):
        path = folder / f'{name}_images.jpg'
        _save(image_sheet(photos, images, f'The {name} images.', _columns(len(images))), path)
        yield path
    path = folder / 'mistakes.jpg'
    _save(mistake_sheet(photos, min(count, 10)), path)
    yield path


def _columns(count: int) -> int:
    """Four, or so many that a sheet is not much higher than wide: a JPEG has 65,500 pixels."""
    return max(4, math.isqrt(count))


def _save(sheet: Image.Image, path: Path) -> None:
    with writing(path):
        sheet.save(path, quality=85)

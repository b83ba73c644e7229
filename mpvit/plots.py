"""Pictures of a run: its curves, and a contact sheet of detections."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')  # files only: needs no display

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image
from pycocotools.coco import COCO

_LOSSES = {
    'loss': 'total',
    'loss_cls': 'class',
    'loss_bbox': 'box (L1)',
    'loss_iou': 'box (GIoU)',
}
_SCORES = {'coco/bbox_mAP': 'AP', 'coco/bbox_mAP_50': 'AP50', 'coco/bbox_mAP_75': 'AP75'}
_LABEL_HEIGHT = 10  # pixels
Series = dict[str, tuple[list[float], list[float]]]


def plot_curves(log_dir: Path, target: Path) -> Path:
    """Draw the losses of the training and the AP of its evaluations.

    Args:
        log_dir: Log folder of a run, which holds ``vis_data/scalars.json``.
        target: PNG file to write.

    Returns:
        The file.

    Raises:
        FileNotFoundError: The run has no log.
    """
    series = _read_scalars(log_dir / 'vis_data' / 'scalars.json')
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout='constrained')
    _draw_series(left, series, _LOSSES)
    left.set(title='Training loss', xlabel='step', ylabel='loss', yscale='log')
    _draw_series(right, series, _SCORES, marker='o')
    right.set(title='Validation', xlabel='epoch', ylabel='AP', ylim=(0, 1))
    figure.savefig(target, dpi=120)
    plt.close(figure)
    return target


def _read_scalars(path: Path) -> Series:
    """Every logged number with its steps."""
    series: Series = defaultdict(lambda: ([], []))
    for line in path.read_text().splitlines():
        record = json.loads(line)
        for name, value in record.items():
            if isinstance(value, int | float) and name != 'step':
                steps, values = series[name]
                steps.append(record['step'])
                values.append(value)
    return series


def _draw_series(axes: Axes, series: Series, names: Mapping[str, str], **style: Any) -> None:
    for name, label in names.items():
        if name in series:
            axes.plot(*series[name], label=label, **style)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()


def contact_sheet(
    annotations: Path,
    detections: Path,
    images: Path,
    target: Path,
    *,
    count: int = 24,
    columns: int = 6,
    threshold: float = 0.3,
) -> Path:
    """Draw images with ground truth (white, dashed) and detections (coloured, with class, score).

    Args:
        annotations: Ground truth in COCO format.
        detections: Detections in COCO result format.
        images: Folder of the images.
        target: PNG file to write.
        count: Images to draw, taken evenly from the whole set.
        columns: Images in a row.
        threshold: Lowest score drawn, in [0, 1].

    Returns:
        The file.
    """
    with open(annotations) as file:
        truth = COCO()
        truth.dataset = json.load(file)
    by_image = defaultdict(list)
    for detection in json.loads(detections.read_text()):
        if detection['score'] >= threshold:
            by_image[detection['image_id']].append(detection)
    all_ids = [image['id'] for image in truth.dataset['images']]
    chosen = all_ids[:: max(1, len(all_ids) // count)][:count]
    truths = defaultdict(list)
    for annotation in truth.dataset['annotations']:
        truths[annotation['image_id']].append(annotation)
    files = {image['id']: image['file_name'] for image in truth.dataset['images']}
    categories = truth.dataset['categories']
    names = {category['id']: category['name'] for category in categories}
    colours = {id_: f'C{i % 10}' for i, id_ in enumerate(names)}  # matplotlib's colour cycle

    rows = -(-len(chosen) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(2.4 * columns, 2.5 * rows), layout='constrained', squeeze=False
    )
    for axes in grid.flat:
        axes.axis('off')
    for axes, image_id in zip(grid.flat, chosen, strict=False):
        axes.imshow(Image.open(images / files[image_id]).convert('RGB'))
        _draw_boxes(axes, truths[image_id], by_image[image_id], names, colours)
    figure.suptitle(
        f'white, dashed: ground truth; coloured: detections with a score of {threshold} or more'
    )
    figure.savefig(target, dpi=110)
    plt.close(figure)
    return target


def _draw_boxes(
    axes: Axes,
    truths: Sequence[Mapping[str, Any]],
    detections: Sequence[Mapping[str, Any]],
    names: Mapping[int, str],
    colours: Mapping[int, Any],
) -> None:
    for truth in truths:
        x, y, width, height = truth['bbox']
        axes.add_patch(Rectangle((x, y), width, height, fill=False, ec='black', lw=1.6))
        axes.add_patch(Rectangle((x, y), width, height, fill=False, ec='white', lw=1.2, ls='--'))
    for detection in sorted(detections, key=lambda d: d['score']):  # the best on top
        x, y, width, height = detection['bbox']
        colour = colours[detection['category_id']]
        axes.add_patch(Rectangle((x, y), width, height, fill=False, ec=colour, lw=1.4))
        axes.text(
            x,
            y,
            f'{names[detection["category_id"]]} {detection["score"]:.2f}',
            fontsize=6,
            va='top' if y < _LABEL_HEIGHT else 'bottom',  # within the image
            color='white',
            bbox=dict(facecolor=colour, pad=0.6, lw=0),
            clip_on=True,
        )

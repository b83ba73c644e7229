"""A picture of a dataset: how its boxes, classes and images are spread, and its worst samples."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from mpvit.datasets.check.boxes import image_sizes, usable
from mpvit.datasets.check.checker import Inspection
from mpvit.datasets.check.classes import class_counts
from mpvit.datasets.check.problems import SEVERITIES, Problem
from mpvit.datasets.check.report import grouped, verdict
from mpvit.datasets.check.table import Table

_COLOURS = {'fatal': '#7b0f1a', 'error': '#d1495b', 'warning': '#edae49', 'info': '#8d99ae'}
_SPLIT_COLOURS = {'train': '#2a6f97', 'val': '#e07a2f'}
_COLUMNS = 4
_SAMPLES = 8
_CLASSES = 20  # shown at most
_PIXELS = 640  # longest side of a sample; its file may have many more
_NAME = 30  # characters


@dataclass
class _Sample:
    """An image to draw, and everything found about it."""

    table: Table
    row: int
    problems: list[Problem]

    @property
    def path(self) -> str:
        return self.table.paths[self.row]


def draw_picture(found: Inspection, target: str | os.PathLike[str]) -> None:
    """Draw histograms and the images with the worst problems.

    Args:
        found: What was found.
        target: PNG file to write.
    """
    samples = _worst(found)
    rows = -(-len(samples) // _COLUMNS)
    figure = Figure(figsize=(4.4 * _COLUMNS, 4.6 + 4.2 * rows), layout='constrained', dpi=100)
    FigureCanvasAgg(figure)  # files only: needs no display, and touches no global state
    with matplotlib.rc_context({'font.size': 9, 'axes.titlesize': 11}):
        grid = figure.add_gridspec(1 + rows, _COLUMNS, height_ratios=[1.1] + [1.0] * rows)
        figure.suptitle(f'{_title(found)}\n{verdict(found.problems)}', fontsize=13)
        _draw_problems(figure.add_subplot(grid[0, 0]), found.problems)
        _draw_box_sizes(figure.add_subplot(grid[0, 1]), found)
        _draw_classes(figure.add_subplot(grid[0, 2]), found)
        _draw_image_sizes(figure.add_subplot(grid[0, 3]), found)
        for index, sample in enumerate(samples):
            axes = figure.add_subplot(grid[1 + index // _COLUMNS, index % _COLUMNS])
            _draw_sample(axes, sample)
        figure.savefig(target)


def _title(found: Inspection) -> str:
    return '; '.join(
        f'{table.role}: {len(table.images):,} images, {len(table.annotations):,} annotations'
        for table in found.tables
    )


def _draw_problems(axes: Axes, problems: Sequence[Problem]) -> None:
    """A bar for every kind of problem, the worst on top."""
    groups = grouped(problems)[:14]
    axes.set_title('problems')
    if not groups:
        axes.text(0.5, 0.5, 'none', ha='center', va='center', transform=axes.transAxes)
        axes.set_axis_off()
        return
    counts = [len(group) for group in groups]
    colours = [_COLOURS[group[0].severity] for group in groups]
    bars = axes.barh([group[0].code for group in groups], counts, color=colours)
    axes.bar_label(bars, [f'{count:,}' for count in counts], padding=3)
    axes.set(xscale='log', xlim=(0.5, 6 * max(counts)))
    axes.xaxis.set_visible(False)  # the bars say their numbers
    axes.invert_yaxis()
    axes.spines[['top', 'right', 'bottom']].set_visible(False)
    shown = {group[0].severity for group in groups}
    for severity in SEVERITIES:
        if severity in shown:
            axes.bar(0, 0, color=_COLOURS[severity], label=severity)
    axes.legend(loc='lower right', framealpha=0.9)


def _draw_box_sizes(axes: Axes, found: Inspection) -> None:
    bins = np.geomspace(1, 2048, 45)
    drawn = [np.array([8.0, 96.0])]
    for table, faults in zip(found.tables, found.faults, strict=True):
        keep = usable(table, faults)
        side = np.sqrt(table.boxes[keep, 2:].prod(1))
        _outline(axes, side, bins, table.role)
        if found.scales is not None and table.role == 'train' and len(side):
            resized = side * found.scales.factor(image_sizes(table)[keep])
            _outline(axes, resized, bins, f'{table.role}, resized', ls='--')
            drawn.append(resized)
        drawn.append(side)
    for limit in (8, 32, 96):
        axes.axvline(limit, color='0.6', lw=0.8, ls=':')
        axes.text(limit, 0.99, f'{limit}', transform=axes.get_xaxis_transform(), va='top')
    axes.set(title='box sizes', xlabel='square root of the area, pixels', ylabel='share of boxes')
    every = np.concatenate(drawn).clip(1, 2048)
    axes.set(xscale='log', xlim=(every.min() / 1.3, every.max() * 1.3))
    axes.set_ylim(0, 1.3 * max(axes.get_ylim()[1], 0.01))  # room for the legend
    _finish(axes)


def _outline(axes: Axes, side: np.ndarray, bins: np.ndarray, label: str, ls: str = '-') -> None:
    if not len(side):
        return
    colour = _SPLIT_COLOURS[label.split(',')[0]]
    counts = np.histogram(side.clip(1, 2047), bins)[0] / len(side)
    axes.stairs(counts, bins, color=colour, ls=ls, lw=1.4, label=label)
    if ls == '-':
        axes.stairs(counts, bins, color=colour, fill=True, alpha=0.2)


def _draw_classes(axes: Axes, found: Inspection) -> None:
    """Boxes of each class: of many classes the most and the least frequent."""
    counts = [class_counts(*pair) for pair in zip(found.tables, found.faults, strict=True)]
    names = sorted({name for count in counts for name in count}, key=lambda n: -counts[0].get(n, 0))
    title = f'boxes of the {len(names)} classes'
    if len(names) > _CLASSES:
        names = [*names[: _CLASSES // 2], *names[-(_CLASSES // 2) :]]
        title += f' (the first and last {_CLASSES // 2})'
    height = 0.8 / max(len(counts), 1)
    for index, (table, count) in enumerate(zip(found.tables, counts, strict=True)):
        values = [count.get(name, 0) for name in names]
        places = np.arange(len(names)) + (index - (len(counts) - 1) / 2) * height
        colour = _SPLIT_COLOURS[table.role]
        bars = axes.barh(places, values, height, color=colour, label=table.role)
        axes.bar_label(bars, [f'{value:,}' for value in values], padding=2, fontsize=7)
    most = max([1, *(value for count in counts for value in count.values())])
    logarithmic = any(0 < value < most / 50 for count in counts for value in count.values())
    scale = dict(xscale='log', xlim=(0.5, 6 * most)) if logarithmic else dict(xlim=(0, 1.3 * most))
    axes.set(title=title, **scale)
    axes.xaxis.set_visible(False)  # the bars say their numbers
    axes.set_yticks(range(len(names)), [_shortened(name) for name in names])
    axes.invert_yaxis()
    _finish(axes)


def _draw_image_sizes(axes: Axes, found: Inspection) -> None:
    for table in found.tables:
        sizes = table.sizes[~np.isnan(table.sizes[:, 0])]
        if len(sizes):
            unique, times = np.unique(sizes, axis=0, return_counts=True)
            area = 12 + 400 * times / times.sum()
            colour = _SPLIT_COLOURS[table.role]
            axes.scatter(unique[:, 0], unique[:, 1], area, color=colour, alpha=0.35, lw=0)
            axes.plot([], [], 'o', color=colour, label=table.role)
    axes.set(title='stated image sizes', xlabel='width, pixels', ylabel='height, pixels')
    axes.margins(0.12)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    _finish(axes)


def _finish(axes: Axes) -> None:
    axes.spines[['top', 'right']].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc='best', framealpha=0.9)


def _worst(found: Inspection) -> list[_Sample]:
    """Images with problems, every kind of problem once before any comes again."""
    places = {}
    for table in found.tables:
        by_id = {image['id']: row for row, image in enumerate(table.images)}
        places[table.file] = (table, by_id)
    by_path = {path: (table, row) for table in found.tables for row, path in enumerate(table.paths)}
    samples: dict[tuple[str, int], _Sample] = {}
    by_code: dict[str, list[_Sample]] = defaultdict(list)
    for group in grouped(found.problems):
        for one in group:
            place = by_path.get(one.file)
            if place is None and one.file in places and one.image_id is not None:
                table, by_id = places[one.file]
                row = by_id.get(one.image_id)
                place = None if row is None else (table, row)
            if place is None or one.severity == 'info':
                continue
            key = (place[0].file, place[1])
            sample = samples.setdefault(key, _Sample(*place, []))
            sample.problems.append(one)
            by_code[one.code].append(sample)
    del by_code['image-missing'][1:]  # there is nothing to see
    return _spread_over_codes(by_code)


def _spread_over_codes(by_code: dict[str, list[_Sample]]) -> list[_Sample]:
    chosen: list[_Sample] = []
    queues = [iter(sorted(group, key=lambda s: -len(s.problems))) for group in by_code.values()]
    while queues and len(chosen) < _SAMPLES:
        for queue in list(queues):
            sample = next((s for s in queue if not any(s is c for c in chosen)), None)
            if sample is None:
                queues.remove(queue)
            elif len(chosen) < _SAMPLES:
                chosen.append(sample)
    return chosen


def _draw_sample(axes: Axes, sample: _Sample) -> None:
    table, row = sample.table, sample.row
    width, height = table.sizes[row]
    size = (width, height) if np.isfinite(width) else (1, 1)
    axes.set(xticks=[], yticks=[])
    try:
        with Image.open(sample.path) as image:
            size = image.size
            image.thumbnail((_PIXELS, _PIXELS))
            axes.imshow(image.convert('RGB'), extent=(0, size[0], size[1], 0))
    except Exception:  # it is shown because something is wrong with it
        axes.add_patch(Rectangle((0, 0), *size, fc='0.75'))
        axes.text(0.5, 0.02, 'cannot be read', ha='center', transform=axes.transAxes)
    boxes = table.boxes[table.image_row == row]
    (left, top), (right, bottom) = _view(np.array(size), boxes)
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect='equal', facecolor='0.93')
    axes.spines[:].set_visible(False)
    bad = {one.annotation_id for one in sample.problems if one.code.startswith('box')}
    for index in np.flatnonzero(table.image_row == row):
        _draw_box(axes, table.boxes[index], table.annotations[index]['id'] in bad)
    codes = list(dict.fromkeys(one.code for one in sample.problems))
    text = f'{_shortened(os.path.basename(sample.path))}\n{", ".join(codes[:2])}'
    axes.set_title(
        text + (f', {len(codes) - 2} more' if len(codes) > 2 else ''),
        fontsize=9,
        color=_COLOURS[sample.problems[0].severity],
    )


def _view(size: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two corners of a part that shows the image, and boxes that are not too far away."""
    boxes = boxes[np.isfinite(boxes).all(1)]
    points = np.concatenate([[[0, 0], size], boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    points = points.clip(-0.6 * size, 1.6 * size)
    margin = 0.03 * max(size)
    return points.min(0) - margin, points.max(0) + margin


def _draw_box(axes: Axes, box: np.ndarray, bad: bool) -> None:
    """A box with corners the right way round, so that those without area show too."""
    if np.isfinite(box).all():
        colour, width = (_COLOURS['error'], 2.2) if bad else ('white', 1.2)
        for ec, lw in (('black', width + 1), (colour, width)):
            axes.add_patch(
                Rectangle(tuple(box[:2]), *box[2:], fill=False, ec=ec, lw=lw, snap=False)
            )


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME else f'...{name[3 - _NAME :]}'

"""A picture of a dataset: how its boxes, classes and images are spread, and its worst samples."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mpvit.datasets.check.checker import Inspection
from mpvit.datasets.check.problems import SEVERITIES, Problem
from mpvit.datasets.check.report import grouped, verdict
from mpvit.datasets.palette import CLASSES
from mpvit.datasets.table import Annotations
from mpvit.files.untrusted import open_image
from mpvit.inference.drawing import Box
from mpvit.inference.images import from_pillow
from mpvit.visualization.sheets import GREY, boxed, reach
from mpvit.visualization.style import new_figure, note, save, saying, shortened, styled

_COLOURS = {'fatal': '#7b0f1a', 'error': '#d1495b', 'warning': '#edae49', 'info': '#8d99ae'}
_SPLIT_COLOURS = dict(zip(('train', 'val'), CLASSES, strict=False))
_COLUMNS = 4
_SAMPLES = 8
_NAME = 30  # characters
_CLASSES = 20  # shown at most
_SIDE = 480  # pixels of a sample; its file may have many more
_LETTERS = 14  # pixels, of its labels


@dataclass(eq=False)
class _Sample:
    """An image to draw, and everything found about it."""

    table: Annotations
    row: int
    problems: list[Problem]


def draw_picture(found: Inspection, target: str | os.PathLike[str]) -> None:
    """Draw histograms and the images with the worst problems into a PNG file."""
    save(_drawn(found), Path(target))


@styled
def _drawn(found: Inspection) -> Figure:
    samples = _worst(found)
    rows = -(-len(samples) // _COLUMNS)
    figure = new_figure(4.4 * _COLUMNS, 4.6 + 4.2 * rows)
    grid = figure.add_gridspec(1 + rows, _COLUMNS, height_ratios=[1.1] + [1.0] * rows)
    title = '; '.join(
        f'{role}: {len(table.images):,} images, {len(table.annotations):,} annotations'
        for role, table in found.tables.items()
    )
    figure.suptitle(f'{title}\n{verdict(found.problems)}', fontsize=13)
    _draw_problems(figure.add_subplot(grid[0, 0]), found.problems)
    _draw_box_sizes(figure.add_subplot(grid[0, 1]), found)
    _draw_classes(figure.add_subplot(grid[0, 2]), found)
    _draw_image_sizes(figure.add_subplot(grid[0, 3]), found)
    for index, sample in enumerate(samples):
        place = grid[1 + index // _COLUMNS, index % _COLUMNS]
        _draw_sample(figure.add_subplot(place), sample)
    return figure


def _draw_problems(axes: Axes, problems: Sequence[Problem]) -> None:
    """A bar for every kind of problem, the worst on top."""
    groups = grouped(problems)[:14]
    axes.set_title('problems')
    if not groups:
        note(axes, 'none')
        return
    counts = [len(group) for group in groups]
    colours = [_COLOURS[group[0].severity] for group in groups]
    bars = axes.barh([group[0].code for group in groups], counts, color=colours)
    saying(axes, bars, [f'{count:,}' for count in counts])
    axes.set(xscale='log', xlim=(0.5, 6 * max(counts)))
    axes.invert_yaxis()
    shown = {group[0].severity for group in groups}
    for severity in SEVERITIES:
        if severity in shown:
            axes.bar(0, 0, color=_COLOURS[severity], label=severity)
    axes.legend(loc='lower right')


def _draw_box_sizes(axes: Axes, found: Inspection) -> None:
    bins = np.geomspace(1, 2048, 45)
    drawn = [np.array([8.0, 96.0])]
    for role, table in found.tables.items():
        keep = table.usable
        side = np.sqrt(table.boxes[keep, 2:].prod(1))
        _outline(axes, side, bins, role)
        if found.scales is not None and role == 'train' and len(side):
            resized = side * found.scales.factor(table.image_sizes(keep))
            _outline(axes, resized, bins, f'{role}, resized', ls='--')
            drawn.append(resized)
        drawn.append(side)
    for limit in (8, 32, 96):
        axes.axvline(limit, color='0.6', lw=0.8, ls=':')
        axes.text(limit, 0.99, f'{limit}', transform=axes.get_xaxis_transform(), va='top')
    axes.set(title='box sizes', xlabel='square root of the area, pixels', ylabel='share of boxes')
    every = np.concatenate(drawn).clip(1, 2048)
    axes.set(xscale='log', xlim=(every.min() / 1.3, every.max() * 1.3))
    axes.xaxis.set_major_formatter('{x:g}')
    axes.set_ylim(0, 1.3 * max(axes.get_ylim()[1], 0.01))  # room for the legend
    _legend(axes)


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
    counts = [table.class_counts() for table in found.tables.values()]
    names = sorted({name for count in counts for name in count}, key=lambda n: -counts[0].get(n, 0))
    title = f'boxes of the {len(names)} classes'
    if len(names) > _CLASSES:
        names = [*names[: _CLASSES // 2], *names[-(_CLASSES // 2) :]]
        title += f' (the first and last {_CLASSES // 2})'
    height = 0.8 / max(len(counts), 1)
    for index, (role, count) in enumerate(zip(found.tables, counts, strict=True)):
        values = [count.get(name, 0) for name in names]
        places = np.arange(len(names)) + (index - (len(counts) - 1) / 2) * height
        colour = _SPLIT_COLOURS[role]
        bars = axes.barh(places, values, height, color=colour, label=role)
        saying(axes, bars, [f'{value:,}' for value in values], 7)
    most = max([1, *(value for count in counts for value in count.values())])
    logarithmic = any(0 < value < most / 50 for count in counts for value in count.values())
    scale = dict(xscale='log', xlim=(0.5, 6 * most)) if logarithmic else dict(xlim=(0, 1.3 * most))
    axes.set(title=title, **scale)
    axes.set_yticks(range(len(names)), [shortened(name, _NAME) for name in names])
    axes.invert_yaxis()
    _legend(axes)


def _draw_image_sizes(axes: Axes, found: Inspection) -> None:
    for role, table in found.tables.items():
        sizes = table.sizes[~np.isnan(table.sizes[:, 0])]
        if len(sizes):
            unique, times = np.unique(sizes, axis=0, return_counts=True)
            area = 12 + 400 * times / times.sum()
            colour = _SPLIT_COLOURS[role]
            axes.scatter(unique[:, 0], unique[:, 1], area, color=colour, alpha=0.35, lw=0)
            axes.plot([], [], 'o', color=colour, label=role)
    axes.set(title='stated image sizes', xlabel='width, pixels', ylabel='height, pixels')
    axes.margins(0.12)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    _legend(axes)


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


def _worst(found: Inspection) -> list[_Sample]:
    """Images with problems, every kind of problem once before any comes again."""
    tables = found.tables.values()
    rows = [(table, row) for table in tables for row in range(len(table.images))]
    by_path = {table.paths[row]: (table, row) for table, row in rows}
    by_id = {(table.file, table.images[row]['id']): (table, row) for table, row in rows}
    samples: dict[tuple[str, int], _Sample] = {}
    by_code: dict[str, list[_Sample]] = defaultdict(list)
    for one in (problem for group in grouped(found.problems) for problem in group):
        place = by_path.get(one.file) or by_id.get((one.file, one.image_id))
        if place is not None and one.severity != 'info':
            sample = samples.setdefault((place[0].file, place[1]), _Sample(*place, []))
            sample.problems.append(one)
            by_code[one.code].append(sample)
    del by_code['image-missing'][1:]  # there is nothing to see
    queues = [sorted(group, key=lambda s: -len(s.problems)) for group in by_code.values()]
    in_turn = dict.fromkeys(chain.from_iterable(zip_longest(*queues)))
    return [sample for sample in in_turn if sample is not None][:_SAMPLES]


def _draw_sample(axes: Axes, sample: _Sample) -> None:
    table, row = sample.table, sample.row
    path = table.paths[row]
    codes = list(dict.fromkeys(one.code for one in sample.problems))
    text = ', '.join(codes[:2]) + (f', {len(codes) - 2} more' if len(codes) > 2 else '')
    size = tuple(np.nan_to_num(table.sizes[row], nan=_SIDE).astype(int).tolist())
    try:
        with open_image(path) as image:
            size = image.size
            image.draft('RGB', (_SIDE, _SIDE))
            pixels = from_pillow(image, turn=False)
    except Exception:  # it is shown because something is wrong with it
        width, height = (max(1, round(_SIDE * length / max(1, *size))) for length in size)
        pixels = np.full((height, width, 3), GREY, np.uint8)
        size = (max(1, size[0]), max(1, size[1]))
        text += '\n(cannot be read)'
    bad = {one.annotation_id: one.code for one in sample.problems if one.code.startswith('box')}
    boxes = []
    for index in table.rows_in(row).tolist():
        x, y, width, height = table.boxes[index]
        code = bad.get(table.annotations[index]['id'], '')
        colour = _COLOURS['error'] if code else '#ffffff'
        if np.isfinite(table.boxes[index]).all():
            boxes.append(Box((x, y, x + width, y + height), colour, code, dashed=not code))
    region = reach([box.corners for box in boxes], size, 0.6)
    axes.imshow(boxed(pixels, boxes, _SIDE, region, size, _LETTERS))
    axes.set_axis_off()
    title = f'{shortened(os.path.basename(path), _NAME, end=True)}\n{text}'
    axes.set_title(title, fontsize=9, color=_COLOURS[sample.problems[0].severity])

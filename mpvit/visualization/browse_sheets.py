"""Contact sheets of annotated images: one row an image, one file a few rows."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from PIL import Image

from mpvit.datasets.palette import ink_on

_ROWS = 4  # of a sheet
_PANEL = 3.4  # inches
_PIXELS = 700  # longest side of a picture in a sheet
_MARGIN = 0.25  # of the image, around it, for boxes that reach out
_FEW = 15  # boxes of an image that are all labelled; of more only those that are not tiny
_ODD = '#e6194b'  # what is not as it should be
_CLASSES = 24  # of the legend


@dataclass(frozen=True)
class Box:
    """A box to draw.

    Attributes:
        corners: ``(x1, y1, x2, y2)`` in pixels of the picture.
        label: Index of its class; -1 for none of the dataset's.
        note: What is special about it: 'crowd', 'left out', 'cut'; else empty.
    """

    corners: tuple[float, ...]
    label: int
    note: str = ''


@dataclass(frozen=True)
class Panel:
    """A picture of a sheet.

    Attributes:
        pixels: RGB, shape ``(H, W, 3)``; None for none.
        boxes: Boxes on it.
        title: Text over it.
        size: ``(width, height)`` of the part that is not padding; None for all of it.
    """

    pixels: NDArray[np.uint8] | None
    boxes: Sequence[Box]
    title: str
    size: tuple[int, int] | None = None


def sheet_names(folder: str | os.PathLike[str], split: str, count: int) -> list[Path]:
    """Files of the sheets for a number of images.

    Args:
        folder: Where they are.
        split: What their names begin with.
        count: How many images.
    """
    return [Path(folder) / f'{split}_{page + 1:02d}.png' for page in range(-(-count // _ROWS))]


def draw_sheets(
    rows: Sequence[Sequence[Panel]],
    names: Sequence[str],
    colours: Sequence[tuple[int, int, int]],
    targets: Sequence[Path],
) -> list[Path]:
    """Draw rows of pictures.

    Args:
        rows: For each image the annotated one and then what is made of it.
        names: Names of the classes.
        colours: RGB of each class in [0, 255].
        targets: PNG files to write, as many as the rows need.

    Returns:
        The files.
    """
    for page, target in enumerate(targets):
        figure = _sheet(rows[page * _ROWS : (page + 1) * _ROWS], names, colours)
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target, dpi=110)
    return list(targets)


def _sheet(
    rows: Sequence[Sequence[Panel]],
    names: Sequence[str],
    colours: Sequence[tuple[int, int, int]],
) -> Figure:
    columns = len(rows[0])
    size = (_PANEL * columns, (_PANEL * 0.95) * len(rows) + 0.9)
    figure = Figure(figsize=size, layout='constrained')
    FigureCanvasAgg(figure)  # files only: needs no display, and touches no global state
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes_row, row in zip(grid, rows, strict=True):
        for axes, panel in zip(axes_row, row, strict=True):
            _draw_panel(axes, panel, names, colours)
    counts = Counter(box.label for row in rows for box in row[0].boxes if box.label >= 0)
    handles = [
        Patch(color=_rgb(colours[label]), label=f'{names[label]} ({count})')
        for label, count in counts.most_common(_CLASSES)
    ]
    if any(box.note for row in rows for panel in row for box in panel.boxes):
        handles.append(Patch(fill=False, ec=_ODD, ls='--', label='not trained on as it is'))
    if handles:
        figure.legend(handles=handles, loc='outside lower center', ncols=2 * columns, fontsize=8)
    figure.suptitle('annotated' if columns == 1 else 'annotated | as the detector is fed', size=11)
    return figure


def _draw_panel(
    axes: Axes,
    panel: Panel,
    names: Sequence[str],
    colours: Sequence[tuple[int, int, int]],
) -> None:
    axes.axis('off')
    axes.set_title(panel.title, fontsize=8, loc='left')
    if panel.pixels is None:
        return
    height, width = panel.pixels.shape[:2]
    scale = min(1.0, _PIXELS / max(height, width))
    picture = Image.fromarray(np.ascontiguousarray(panel.pixels))
    picture = picture.resize((max(1, round(width * scale)), max(1, round(height * scale))))
    axes.imshow(np.asarray(picture), extent=(0, width, height, 0))
    if panel.size and panel.size != (width, height):
        axes.add_patch(Rectangle((0, 0), *panel.size, fill=False, ec='white', lw=0.8, ls=':'))
    reach = _reach(panel.boxes, width, height)
    few = len(panel.boxes) <= _FEW
    for box in panel.boxes:
        x1, y1, x2, y2 = box.corners
        is_tiny = (x2 - x1) * (y2 - y1) < 0.01 * width * height
        known = box.label >= 0
        name = names[box.label] if known else 'other class'
        colour = _rgb(colours[box.label]) if known else (0.5, 0.5, 0.5)
        _draw_box(axes, box, colour, name if few or box.note or not is_tiny else '', reach)
    axes.set(xlim=(reach[0], reach[2]), ylim=(reach[3], reach[1]))


def _reach(boxes: Sequence[Box], width: int, height: int) -> tuple[float, ...]:
    """The image, and as much around it as boxes that reach out need, up to a margin."""
    corners = np.array([(0, 0, width, height), *(box.corners for box in boxes)], dtype=float)
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    size = np.array([width, height])
    low = np.maximum(low, -_MARGIN * size)
    high = np.minimum(high, (1 + _MARGIN) * size)
    return (*low.tolist(), *high.tolist())


def _draw_box(
    axes: Axes,
    box: Box,
    colour: tuple[float, float, float],
    name: str,
    reach: tuple[float, ...],
) -> None:
    x1, y1, x2, y2 = box.corners
    edge, style = (_ODD, '--') if box.note else (colour, '-')
    patch = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=edge, lw=1.5, ls=style)
    patch.set_path_effects([withStroke(linewidth=2.6, foreground='white', alpha=0.6)])
    axes.add_patch(patch)
    left, top, right, bottom = reach
    if box.note == 'left out':  # it may have no area, or lie out of sight
        centre = np.clip((x1 + x2) / 2, left, right), np.clip((y1 + y2) / 2, top, bottom)
        axes.plot(*centre, marker='x', color=_ODD, ms=7, mew=2, clip_on=False)
    if name:
        near_top = y1 < top + 0.07 * (bottom - top)
        axes.text(
            np.clip(x1, left, right),
            np.clip(y1, top, bottom),
            f'{name}, {box.note}' if box.note else name,
            fontsize=6.5,
            ha='right' if x1 > 0.8 * right + 0.2 * left else 'left',
            va='top' if near_top else 'bottom',
            color=ink_on(to_hex(colour)),
            bbox=dict(facecolor=colour, pad=0.8, lw=0),
            clip_on=True,
        )


def _rgb(colour: tuple[int, int, int]) -> tuple[float, float, float]:
    red, green, blue = colour
    return red / 255, green / 255, blue / 255

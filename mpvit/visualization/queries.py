"""Pictures of what queries look at: the sampling points of detections on their image."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from PIL import Image

import mpvit.register  # noqa: F401
from mpvit.datasets.palette import level_colour
from mpvit.engine.hooks.prepare_inference import chosen_device
from mpvit.engine.run_errors import explained_faults
from mpvit.inference import load_detector
from mpvit.inference.drawing import Box
from mpvit.inference.images import as_pixels
from mpvit.inference.queries import Picture, SamplingPoints, record
from mpvit.visualization.sheets import boxed
from mpvit.visualization.style import new_figure, save, styled

_LARGEST = 9.0  # diameter in points of the sample with the largest weight
_SIDE = 640  # pixels; smaller images are enlarged, or the points would cover them
_LETTERS = 18  # pixels, of labels in such an image
_DPI = 100
_BOX = '#202020'


def show_queries(
    config: str | os.PathLike[str],
    checkpoint: str | os.PathLike[str],
    image: str | os.PathLike[str],
    figure: str | os.PathLike[str],
    *,
    layer: int = -1,
    top: int = 6,
    device: str | None = None,
) -> list[str]:
    """Draw what the queries of the best detections look at, into a file.

    Args:
        config: Config file.
        checkpoint: Checkpoint that fits it.
        image: As for `mpvit.inference.images.as_pixels`.
        figure: Picture to write: .png, .jpg, .pdf or .svg.
        layer: Which decoder layer; -1 is the last one.
        top: How many detections.
        device: Where the detector runs; None for a GPU where there is one.

    Returns:
        Class and score of the detections that were drawn.

    Raises:
        UserError: See `mpvit.inference.loading.load_detector` and `record`; or the device is not
            to be had, or its memory is full.
    """
    picture = Image.fromarray(as_pixels(image))
    with explained_faults(less_memory='use a smaller image, or --device cpu'):
        model = load_detector(config, checkpoint, chosen_device(device))
        points = record(model, picture, layer)
    save(draw_sheet(picture, points, top), Path(figure))
    return [points.name(detection) for detection in range(min(top, len(points.boxes)))]


@styled
def draw_sheet(image: Picture, points: SamplingPoints, top: int = 6) -> Figure:
    """All of the best detections in one picture, and the sampling points of each in its own.

    Args:
        image: The image that was given to `record`.
        points: What `record` returned.
        top: How many detections.
    """
    chosen = range(min(top, len(points.boxes)))
    panels: list[tuple[Sequence[int], str, str]] = [
        (chosen, 'detection', f'the best {len(chosen)}, a colour each'),
        *(([detection], 'level', points.name(detection)) for detection in chosen),
    ]
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    width, height = points.size
    side = 4.0 / max(width, height)  # inches
    figure = new_figure(columns * side * width, rows * (side * height + 0.3) + 0.8)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.axis('off')
    for axes, (detections, by, title) in zip(grid.flat, panels, strict=False):
        draw_on(axes, image, points, detections, by, labels=by == 'detection')
        axes.set_title(title, fontsize=10, fontweight='normal')
    figure.suptitle(f'Sampling points of decoder layer {points.layer}', fontsize=12)
    figure.legend(
        handles=_levels(points), title='single detections', loc='outside lower center', ncols=5
    )
    return figure


def draw(image: Picture, points: SamplingPoints, detections: Sequence[int] = (0,)) -> Image.Image:
    """Draw the sampling points of detections on the image.

    A sample is a dot, the larger and the more opaque the more attention it gets; the cross is the
    reference point. Colours tell levels, or detections if there are several. Small images are
    enlarged.

    Args:
        image: The image that was given to `record`.
        points: What `record` returned.
        detections: Which detections, as indices into ``points.boxes``.

    Returns:
        RGB picture with the proportions of the image.
    """
    by = 'level' if len(detections) == 1 else 'detection'
    width, height = points.size
    scale = max(1.0, _SIDE / max(width, height)) / _DPI
    figure = Figure(figsize=(width * scale, height * scale), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    draw_on(axes, image, points, detections, by)
    if by == 'level':
        axes.legend(handles=_levels(points), fontsize=8, framealpha=0.85)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert('RGB')


def draw_on(
    axes: Axes,
    image: Picture,
    points: SamplingPoints,
    detections: Sequence[int],
    by: str,
    labels: bool = True,
) -> None:
    """Draw as `draw` does, into axes.

    Colours tell what ``by`` says, 'level' or 'detection'; labels are class and score beside boxes.
    """
    width, height = points.size
    faded = (0.65 * as_pixels(image) + 0.35 * 255).astype(np.uint8)  # or dots would drown in it
    by_detection = by == 'detection'
    drawn = [
        (detection, level_colour(order) if by_detection else _BOX)
        for order, detection in enumerate(detections)
    ][::-1]  # the best on top
    boxes = [
        Box(points.boxes[detection], colour, points.name(detection) if labels else '')
        for detection, colour in drawn
    ]
    side = max(_SIDE, *points.size)
    picture = boxed(faded, boxes, side, letters=round(_LETTERS * side / _SIDE))
    axes.imshow(picture, extent=(0, width, height, 0))
    axes.axis('off')
    for detection, colour in drawn:
        _dots(axes, points, detection, colour if by_detection else None)
    axes.set(xlim=(0, width), ylim=(height, 0))


def _dots(axes: Axes, points: SamplingPoints, detection: int, colour: str | None) -> None:
    """The samples of one detection, weak ones first, and its reference point."""
    query = points.queries[detection]
    strength, levels, places = points.samples(query)
    alpha: Any = 0.25 + 0.7 * strength  # of each
    axes.scatter(
        places[:, 0],
        places[:, 1],
        s=_LARGEST**2 * strength,
        c=[colour or level_colour(level) for level in levels],
        alpha=alpha,
        edgecolors='black',
        linewidths=0.4,
        zorder=2,
    )
    x, y = points.references[query][:2]
    (cross,) = axes.plot(x, y, marker='+', ms=13, mew=1.6, color=colour or _BOX, zorder=3)
    cross.set_path_effects([withStroke(linewidth=3.4, foreground='white')])


def _levels(points: SamplingPoints) -> list[Line2D]:
    """The legend: a dot for each level, the finest first."""
    texts = [f'level {i}: a position every {s:.0f} px' for i, s in enumerate(points.strides)]
    return [
        Line2D([], [], ls='', marker='o', ms=7, color=level_colour(i), label=text)
        for i, text in enumerate(texts)
    ]

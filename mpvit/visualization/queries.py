"""What a decoder layer looks at: the sampling points of its queries, recorded and drawn."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from mmdet.apis import inference_detector
from mmdet.structures import DetDataSample
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from mpvit.datasets.palette import level_colour
from mpvit.engine.hooks.prepare_inference import chosen_device
from mpvit.engine.run_errors import explained_faults
from mpvit.errors import UserError
from mpvit.inference import load_detector
from mpvit.inference.images import as_pixels
from mpvit.inference.loading import image_pipeline
from mpvit.ops.msda.module import sampling_locations

_LARGEST = 9.0  # diameter in points of the sample with the largest weight
_SMALLEST_PICTURE = 640  # pixels; smaller images are enlarged, or the points would cover them
_DPI = 100
_Picture = str | os.PathLike[str] | NDArray[np.uint8] | Image.Image


@dataclass(frozen=True)
class SamplingPoints:
    """Where one decoder layer samples the image, for every query, and what was detected.

    Pixels are the detector's own: its boxes and reference points lie in the same ones. Where an
    image is padded, the detector takes the last cell of a level for a whole one, so that the
    samples of a coarse level in a small image can be off by a part of a cell.

    Attributes:
        layer: Which decoder layer, from 0.
        locations: ``(x, y)`` in pixels of the image, shape ``(queries, heads, levels, points, 2)``.
            Samples may lie outside of the image, where they give nothing.
        weights: Attention weights, shape ``(queries, heads, levels, points)``; those of a head add
            up to 1.
        references: What the layer starts from, in pixels of the image: points ``(x, y)`` or boxes
            ``(cx, cy, w, h)``, shape ``(queries, 2 or 4)``.
        strides: Pixels of the image, as given, between two positions of each level.
        boxes: Detections, best first: ``(x1, y1, x2, y2)`` in pixels, shape ``(N, 4)``.
        scores: In [0, 1], shape ``(N,)``.
        labels: Index into ``classes``, shape ``(N,)``.
        queries: Which query each detection comes from, shape ``(N,)``.
        classes: Names by label.
        size: ``(width, height)`` of the image in pixels.
    """

    layer: int
    locations: NDArray[np.float32]
    weights: NDArray[np.float32]
    references: NDArray[np.float32]
    strides: tuple[float, ...]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    queries: NDArray[np.int64]
    classes: tuple[str, ...]
    size: tuple[int, int]

    def name(self, detection: int) -> str:
        """Class and score of a detection, as it is written beside its box."""
        label = int(self.labels[detection])
        name = self.classes[label] if label < len(self.classes) else f'class {label}'
        return f'{name} {self.scores[detection]:.2f}'


def record(model: nn.Module, image: _Picture, layer: int = -1) -> SamplingPoints:
    """Run a detector on an image and keep what one decoder layer samples.

    Results are those of the detector alone, and nothing stays in it. Other threads may use it
    meanwhile. A compiled detector runs without its compiled code.

    Args:
        model: As `mpvit.inference.load_detector` gives it, prepared in any way.
        image: File, an array ``(H, W, 3)`` in BGR, which is mmdet's order, or a picture of Pillow.
            Files and pictures are turned upright first, as their EXIF data says.
        layer: Which decoder layer; -1 is the last one, whose output the detections are.

    Raises:
        UserError: The image cannot be read, there is no such layer, or the detector's head does
            not say which query a detection comes from.
    """
    layers = getattr(getattr(model, 'decoder', None), 'layers', None)
    if layers is None or not hasattr(layers[-1].cross_attn, 'sampling_offsets'):
        kind = type(model).__name__
        raise UserError(f'{kind} has no decoder that can be looked into; name a checkpoint')
    if not -len(layers) <= layer < len(layers):
        raise UserError(f'layer {layer}: the decoder has layers 0 to {len(layers) - 1}')
    layer %= len(layers)
    cfg: Any = model.cfg
    meta: Any = model.dataset_meta
    stance: Any = getattr(torch.compiler, 'set_stance', None)  # torch 2.6
    with (
        _recorded(layers[layer].cross_attn) as seen,
        stance('force_eager') if stance else nullcontext(),
    ):
        # its own pipeline for arrays would be written into the config
        sample = inference_detector(model, as_pixels(image), image_pipeline(cfg))
    if 'offsets' not in seen:
        raise UserError('this torch runs compiled code only; load the detector without compile')
    return _in_pixels(seen, sample, meta.get('classes') or (), layer)


@contextmanager
def _recorded(attention: Any) -> Iterator[dict[str, Tensor]]:
    """While it lasts, keep what this thread's calls compute inside a deformable attention."""
    seen: dict[str, Tensor] = {}
    thread = threading.get_ident()

    def keep(**tensors: Tensor) -> None:
        if threading.get_ident() == thread:
            seen.update(tensors)

    handles = [
        attention.register_forward_pre_hook(
            lambda module, args, kwargs: keep(
                references=kwargs['reference_points'],
                shapes=kwargs['spatial_shapes'],
                ratios=kwargs['valid_ratios'],
            ),
            with_kwargs=True,
        ),
        attention.sampling_offsets.register_forward_hook(
            lambda module, args, output: keep(
                offsets=output.unflatten(-1, (*_grid(attention), 2)),
            )
        ),
        attention.attention_weights.register_forward_hook(
            lambda module, args, output: keep(
                weights=output.unflatten(-1, (attention.num_heads, -1))
                .softmax(-1)
                .unflatten(-1, _grid(attention)[1:])
            )
        ),
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _grid(attention: Any) -> tuple[int, int, int]:
    return attention.num_heads, attention.num_levels, attention.num_points


def _in_pixels(
    seen: dict[str, Tensor], sample: DetDataSample, classes: Sequence[str], layer: int
) -> SamplingPoints:
    """Undo the padding and the resizing that the detector's coordinates refer to."""
    found = sample.pred_instances
    if 'queries' not in found:
        raise UserError(
            'the head does not say which query a detection comes from; '
            'use type="OfficialDeformableDETRHead"'
        )
    height, width = sample.ori_shape[:2]
    image = seen['references'].new_tensor([width, height])
    ratios = seen['ratios'][0]  # (levels, 2): the part of each level that is not padding
    locations = sampling_locations(seen['references'], seen['offsets'], seen['shapes'])[0]
    references = seen['references'][0, :, 0]
    references = (references.unflatten(-1, (-1, 2)) / ratios[0] * image).flatten(-2)
    columns = seen['shapes'][:, 1] * ratios[:, 0]
    return SamplingPoints(
        layer=layer,
        locations=_array(locations / ratios[:, None] * image),
        weights=_array(seen['weights'][0]),
        references=_array(references),
        strides=tuple((width / columns).tolist()),
        boxes=_array(found.bboxes),
        scores=_array(found.scores),
        labels=found.labels.cpu().numpy(),
        queries=found.queries.cpu().numpy(),
        classes=tuple(classes),
        size=(width, height),
    )


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.float().cpu().numpy()


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
        image: Image file.
        figure: Picture to write, of a type that matplotlib knows.
        layer: Which decoder layer; -1 is the last one.
        top: How many detections.
        device: Where the detector runs; None for a GPU where there is one.

    Returns:
        Class and score of the detections that were drawn.

    Raises:
        UserError: See `mpvit.inference.load_detector` and `record`; or the device is not to be had,
            or its memory is full.
    """
    picture = Image.fromarray(as_pixels(image))
    with explained_faults(less_memory='use a smaller image, or --device cpu'):
        model = load_detector(config, checkpoint, chosen_device(device))
        points = record(model, picture, layer)
    Path(figure).parent.mkdir(parents=True, exist_ok=True)
    draw_sheet(picture, points, top).savefig(figure, dpi=110)
    return [points.name(detection) for detection in range(min(top, len(points.boxes)))]


def draw(
    image: _Picture,
    points: SamplingPoints,
    detections: Sequence[int] = (0,),
    by: str | None = None,
) -> Image.Image:
    """Draw the sampling points of detections on the image.

    A sample is a dot, the larger and the more opaque the more attention it gets; the cross is the
    reference point. Small images are enlarged.

    Args:
        image: The image that was given to `record`.
        points: What `record` returned.
        detections: Which detections, as indices into ``points.boxes``.
        by: What the colours mean, 'level' or 'detection'; None for the level where one detection
            is drawn.

    Returns:
        RGB picture with the proportions of the image.
    """
    by = by or ('level' if len(detections) == 1 else 'detection')
    width, height = points.size
    scale = max(1.0, _SMALLEST_PICTURE / max(width, height))
    figure = Figure(figsize=(width * scale / _DPI, height * scale / _DPI), dpi=_DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    draw_on(axes, as_pixels(image), points, detections, by)
    if by == 'level':
        axes.legend(handles=_levels(points), fontsize=8, framealpha=0.85)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert('RGB')


def draw_sheet(image: _Picture, points: SamplingPoints, top: int = 6) -> Figure:
    """All of the best detections in one picture, and the sampling points of each in its own.

    Args:
        image: The image that was given to `record`.
        points: What `record` returned.
        top: How many detections.

    Returns:
        Figure to save.
    """
    pixels = as_pixels(image)
    chosen = range(min(top, len(points.boxes)))
    panels: list[tuple[Sequence[int], str, str]] = [
        (chosen, 'detection', f'the best {len(chosen)}, a colour each'),
        *(([detection], 'level', points.name(detection)) for detection in chosen),
    ]
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    width, height = points.size
    side = 4.0 / max(width, height)  # inches
    size = (columns * side * width, rows * (side * height + 0.3) + 0.8)
    figure = Figure(figsize=size, layout='constrained')
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.axis('off')
    for axes, (detections, by, title) in zip(grid.flat, panels, strict=False):
        draw_on(axes, pixels, points, detections, by, labels=by == 'detection')
        axes.set_title(title, fontsize=10)
    figure.suptitle(f'Sampling points of decoder layer {points.layer}', fontsize=12)
    figure.legend(
        handles=_levels(points),
        title='single detections',
        loc='outside lower center',
        ncols=5,
        fontsize=9,
        title_fontsize=9,
    )
    return figure


def draw_on(
    axes: Axes,
    pixels: NDArray[np.uint8],
    points: SamplingPoints,
    detections: Sequence[int],
    by: str,
    labels: bool = True,
) -> None:
    """Draw the sampling points of detections into axes.

    Args:
        axes: Where; they show the image and nothing else afterwards.
        pixels: The image, ``(H, W, 3)`` in RGB.
        points: What `record` returned.
        detections: Which detections.
        by: What the colours mean, 'level' or 'detection'.
        labels: Write class and score beside the boxes.
    """
    width, height = points.size
    faded = 0.65 * pixels + 0.35 * 255  # or the dots would drown in it
    axes.imshow(faded.astype(np.uint8), extent=(0, width, height, 0))
    axes.axis('off')
    for order, detection in reversed(list(enumerate(detections))):  # the best on top
        colour = level_colour(order) if by == 'detection' else '#202020'
        x1, y1, x2, y2 = points.boxes[detection]
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, lw=1.8))
        _dots(axes, points, detection, colour if by == 'detection' else None)
        if labels:
            axes.text(
                max(x1, 0),
                max(y1, 0),
                points.name(detection),
                color='black',
                fontsize=9,
                va='top' if y1 < 0.04 * height else 'bottom',
                bbox=dict(facecolor='white', alpha=0.75, pad=1, lw=0),
                clip_on=True,
            )
    axes.set(xlim=(0, width), ylim=(height, 0))


def _dots(axes: Axes, points: SamplingPoints, detection: int, colour: str | None) -> None:
    """The samples of one detection, weak ones first, and its reference point."""
    query = points.queries[detection]
    weights = points.weights[query]
    strength = (weights / weights.max()).ravel()
    order = strength.argsort()
    levels = np.broadcast_to(np.arange(weights.shape[1])[:, None], weights.shape).ravel()
    x, y = points.locations[query].reshape(-1, 2)[order].T
    axes.scatter(
        x,
        y,
        s=_LARGEST**2 * strength[order],
        c=[colour or level_colour(level) for level in levels[order]],
        alpha=0.25 + 0.7 * strength[order],
        edgecolors='black',
        linewidths=0.4,
        zorder=2,
    )
    x, y = points.references[query][:2]
    (cross,) = axes.plot(x, y, marker='+', ms=13, mew=1.6, color=colour or '#202020', zorder=3)
    cross.set_path_effects([withStroke(linewidth=3.4, foreground='white')])


def _levels(points: SamplingPoints) -> list[Line2D]:
    """The legend: a dot for each level, the finest first."""
    texts = [f'level {i}: a position every {s:.0f} px' for i, s in enumerate(points.strides)]
    return [
        Line2D([], [], ls='', marker='o', ms=7, color=level_colour(i), label=text)
        for i, text in enumerate(texts)
    ]

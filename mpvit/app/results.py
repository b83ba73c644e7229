"""What the page shows of a picture, as HTML, and what can be downloaded of it, as JSON.

Names of classes and files come from strangers: everything is escaped here, and the page puts it in
as it is.
"""

import json
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from mpvit.checkpoints.coco_categories import category_ids
from mpvit.datasets.palette import class_colour, ink_on, level_colour
from mpvit.inference import Detections
from mpvit.inference.queries import SamplingPoints

_FAINTEST = 1e-3  # of the strongest sample; fainter ones cannot be seen


@dataclass(frozen=True)
class Result:
    """A picture that was looked at.

    Attributes:
        path: The picture.
        shown: Copy of it for the browser.
        source: Name of the detector.
        detections: What it found.
        layers: How many decoder layers can be looked into.
        selected: The detection that was clicked, or None.
        points: What the layer last looked into samples, or None.
    """

    path: str
    shown: str
    source: str
    detections: Detections
    layers: int
    selected: int | None = None
    points: SamplingPoints | None = None

    @property
    def name(self) -> str:
        """Name of the picture's file."""
        return Path(self.path).name


@dataclass(frozen=True)
class Filter:
    """Which detections are shown.

    Attributes:
        threshold: Their lowest score, in [0, 1].
        labels: Their classes.
    """

    threshold: float
    labels: Collection[int]

    def shown(self, detections: Detections) -> list[int]:
        """Indices of the detections that pass."""
        labels = np.asarray(list(self.labels), int)
        passes = (detections.scores >= self.threshold) & np.isin(detections.labels, labels)
        indices: list[int] = np.flatnonzero(passes).tolist()
        return indices


def found_labels(detections: Detections) -> list[int]:
    """The classes that were found, that of the best detection first."""
    return [int(label) for label in dict.fromkeys(detections.labels.tolist())]


def coco(result: Result, shown: Filter) -> dict[str, Any]:
    """The detections that are shown, in COCO format.

    Returns:
        ``images``, ``categories`` (COCO's own ids for COCO's classes, else from 1) and
        ``annotations``, the last with ``score``; boxes are ``[x, y, width, height]`` in pixels of
        the picture as it is shown, upright.
    """
    found = result.detections
    width, height = found.size
    boxes = np.asarray(found.boxes, dtype=float)
    boxes = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]).round(2)
    ids = category_ids(found.classes)
    return dict(
        info=dict(checkpoint=result.source, threshold=shown.threshold),
        images=[dict(id=1, file_name=result.name, width=width, height=height)],
        categories=[dict(id=id_, name=name) for id_, name in zip(ids, found.classes, strict=True)],
        annotations=[
            dict(
                id=number,
                image_id=1,
                category_id=ids[found.labels[index]],
                bbox=boxes[index].tolist(),
                area=round(float(boxes[index, 2] * boxes[index, 3]), 2),
                iscrowd=0,
                score=round(float(found.scores[index]), 5),
            )
            for number, index in enumerate(shown.shown(found), start=1)
        ],
    )


def picture_html(result: Result, shown: Filter) -> str:
    """The picture with a button on every detection, and the samples of the selected one."""
    indices = shown.shown(result.detections)
    width, height = result.detections.size
    about = f'{result.name} with {_counted(len(indices))}'
    boxes = ''.join(_box(result, index) for index in indices)
    selected = result.selected if result.selected in indices else None
    samples = ''.join(_samples(result, selected)) if selected is not None else ''
    return (
        f'<figure class="seen{" selecting" if samples else ""}">'
        f'<div class="frame" style="aspect-ratio: {width} / {height}; '
        f'--ratio: {width / height:.4f}">'
        f'<img src="gradio_api/file={quote(result.shown)}" alt="{escape(about)}">'
        f'{boxes}{samples}</div>'
        f'<figcaption aria-live="polite">{_caption(result, selected, indices)}</figcaption>'
        '</figure>'
    )


def table_html(result: Result, shown: Filter) -> str:
    """The detections as a table, with a link to download them."""
    indices = shown.shown(result.detections)
    rows = ''.join(_row(result, index) for index in indices)
    content = quote(json.dumps(coco(result, shown), indent=1))
    name = escape(f'{Path(result.name).stem}.json')
    return (
        '<div class="found"><div class="rows"><table><thead><tr><th scope="col">Class</th>'
        '<th scope="col">Score</th><th scope="col">Box (x1, y1, x2, y2)</th></tr></thead>'
        f'<tbody>{rows}</tbody></table></div>'
        f'<a class="download" download="{name}" href="data:application/json,{content}">'
        f'Download {name}</a></div>'
    )


def _counted(count: int) -> str:
    return f'{count} detection{"" if count == 1 else "s"}'


def _title(result: Result, index: int) -> str:
    return f'{_name(result, index)} {result.detections.scores[index]:.2f}'


def _name(result: Result, index: int) -> str:
    return escape(result.detections.classes[result.detections.labels[index]])


def _button(result: Result, index: int) -> str:
    pressed = 'true' if index == result.selected else 'false'
    return f'<button type="button" data-detection="{index}" aria-pressed="{pressed}"'


def _box(result: Result, index: int) -> str:
    """A button that covers a detection; small ones lie above large ones."""
    found = result.detections
    corners = found.boxes[index].astype(float) / np.tile(found.size, 2)
    left, top, right, bottom = 100 * corners.clip(0, 1)
    width, height = right - left, bottom - top
    colour = class_colour(int(found.labels[index]))
    place = f'{"low" if top < 8 else ""} {"right" if left > 70 else ""}'
    return (
        f'{_button(result, index)} class="box {place}" style="left: {left:.3f}%; top: {top:.3f}%; '
        f'width: {width:.3f}%; height: {height:.3f}%; z-index: {_layer(width * height, index)}; '
        f'--colour: {colour}; --ink: {ink_on(colour)}">'
        f'<span>{_title(result, index)}</span></button>'
    )


def _layer(area: float, index: int) -> int:
    """Small boxes lie above large ones; of about the same area the better one lies above."""
    return 100 * (30 - round(2 * math.log2(max(area, 1)))) + max(0, 99 - index)


def _row(result: Result, index: int) -> str:
    found = result.detections
    label = int(found.labels[index])
    box = ', '.join(f'{number:.0f}' for number in found.boxes[index])
    return (
        f'<tr><td>{_button(result, index)} style="--colour: {class_colour(label)}">'
        f'{_name(result, index)}</button></td>'
        f'<td>{found.scores[index]:.2f}</td><td>{box}</td></tr>'
    )


def _samples(result: Result, selected: int) -> Iterator[str]:
    """A dot for every sample of a detection, and a cross where they start from."""
    points, queries = result.points, result.detections.queries
    if points is None or queries is None:
        return
    query = queries[selected]
    size = np.asarray(result.detections.size, dtype=float)
    weights = points.weights[query] / points.weights[query].max()
    for index in np.argsort(weights, axis=None):  # the strongest above
        head, level, point = np.unravel_index(index, weights.shape)
        strength = float(weights[head, level, point])
        if strength > _FAINTEST:
            x, y = 100 * points.locations[query, head, level, point] / size
            yield (
                f'<i class="sample" style="left: {x:.2f}%; top: {y:.2f}%; '
                f'--strength: {strength:.3f}; --colour: {level_colour(level)}"></i>'
            )
    x, y = 100 * points.references[query][:2] / size
    yield f'<i class="reference" style="left: {x:.2f}%; top: {y:.2f}%"></i>'


def _caption(result: Result, selected: int | None, indices: list[int]) -> str:
    points = result.points
    if selected is not None and points is not None:
        levels = ''.join(
            f'<span class="level" style="--colour: {level_colour(level)}">'
            f'every {stride:.0f} px</span>'
            for level, stride in enumerate(points.strides)
        )
        return (
            f'<b>{_title(result, selected)}</b>: the samples of decoder layer {points.layer + 1} '
            f'of {result.layers}. Large dots get most attention; the cross is where the layer '
            f'starts from. Colours are the feature maps, with a cell {levels}'
        )
    width, height = result.detections.size
    hint = ' Click one to see where the detector looked.' if result.layers and indices else ''
    count = _counted(len(indices))
    return f'{escape(result.name)}, {width} × {height} pixels: {count}.{hint}'

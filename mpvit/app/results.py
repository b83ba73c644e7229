"""What the page shows of a picture, as HTML, and what can be downloaded of it, as JSON.

Names of classes and files come from strangers: everything is escaped by the template, and the page
puts it in as it is.
"""

import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpvit.checkpoints.coco_categories import category_ids
from mpvit.datasets.palette import class_colour, ink_on, level_colour
from mpvit.inference import Detections
from mpvit.inference.queries import SamplingPoints
from mpvit.visualization.style import template

_FAINTEST = 1e-3  # of the strongest sample; fainter ones cannot be seen
_HTML: Any = template(Path(__file__).with_name('results.html')).module


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
        pairs = enumerate(zip(detections.scores, detections.labels, strict=True))
        return [i for i, (s, label) in pairs if s >= self.threshold and label in self.labels]


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
    rows = _rows(result, shown)
    selected = next((row for row in rows if row['index'] == result.selected), None)
    samples, reference = _samples(result) if selected else ([], None)
    return str(_HTML.picture(result, rows, selected, samples, reference, level_colour))


def table_html(result: Result, shown: Filter) -> str:
    """The detections as a table, with a link to download them."""
    content = json.dumps(coco(result, shown), indent=1)
    return str(_HTML.table(_rows(result, shown), content, f'{Path(result.name).stem}.json'))


def _rows(result: Result, shown: Filter) -> list[dict[str, Any]]:
    """What the templates say of each detection; places are in percent of the picture."""
    found = result.detections
    rows = []
    for index in shown.shown(found):
        corners = found.boxes[index].astype(float) / np.tile(found.size, 2)
        left, top, right, bottom = 100 * corners.clip(0, 1)
        sides = dict(left=left, top=top, width=right - left, height=bottom - top)
        label = int(found.labels[index])
        rows.append(
            dict(
                index=index,
                pressed='true' if index == result.selected else 'false',
                name=found.classes[label],
                score=float(found.scores[index]),
                box=', '.join(f'{number:.0f}' for number in found.boxes[index]),
                colour=class_colour(label),
                ink=ink_on(class_colour(label)),
                place='; '.join(f'{name}: {value:.3f}%' for name, value in sides.items()),
                z=_layer(sides['width'] * sides['height'], index),
                **sides,
            )
        )
    return rows


def _layer(area: float, index: int) -> int:
    """Small boxes lie above large ones; of about the same area the better one lies above."""
    return 100 * (30 - round(2 * math.log2(max(area, 1)))) + max(0, 99 - index)


def _samples(result: Result) -> tuple[list[dict[str, Any]], Any]:
    """The samples of the selected detection, the strongest last, and where they start from."""
    points, queries = result.points, result.detections.queries
    if points is None or queries is None:
        return [], None
    query = queries[result.selected]
    size = np.asarray(result.detections.size, dtype=float)
    strength, levels, places = points.samples(query)
    samples = [
        dict(x=x, y=y, strength=strong, colour=level_colour(level))
        for strong, level, (x, y) in zip(strength, levels, 100 * places / size, strict=True)
        if strong > _FAINTEST
    ]
    return samples, 100 * points.references[query][:2] / size

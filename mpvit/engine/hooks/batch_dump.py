"""What a training batch held, in files to look at afterwards."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank

_META = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'flip')


@dataclass
class Batch:
    """A batch and what the model made of it.

    Attributes:
        data: As the dataloader gave it, with ``inputs`` and ``data_samples``.
        outputs: Losses by name.
    """

    data: Any
    outputs: Mapping[str, Any]


def dump_batches(
    work_dir: str, iteration: int, batches: Sequence[Batch], record: Mapping[str, Any]
) -> Path:
    """Write batches to ``<work_dir>/nonfinite/iter_<iteration>_rank_<rank>``.

    ``.json`` holds the record, the losses and the images by id and path; ``.pt``, which
    `torch.load` reads with ``weights_only=True``, the images as the pipeline left them, boxes
    ``(x1, y1, x2, y2)`` in their pixels, and labels.

    Args:
        work_dir: Of the run.
        iteration: Number of the step, from 1.
        batches: Of this process.
        record: What else to write down.

    Returns:
        The JSON file.
    """
    path = Path(work_dir) / 'nonfinite' / f'iter_{iteration}_rank_{get_rank()}.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    content = dict(
        iteration=iteration,
        rank=get_rank(),
        **record,
        batches=[
            dict(losses=plain_losses(batch.outputs), images=images_of(batch.data))
            for batch in batches
        ],
    )
    path.write_text(json.dumps(content, indent=2, default=str) + '\n')
    torch.save([_tensors_of(batch.data) for batch in batches], path.with_suffix('.pt'))
    return path


def plain_losses(outputs: Mapping[str, Any]) -> dict[str, float | str]:
    """Losses as numbers, or as a word where JSON has no number: 'nan', 'inf', '-inf'.

    Args:
        outputs: Scalars by name.
    """
    values = {name: float(torch.as_tensor(v).detach()) for name, v in outputs.items()}
    return {name: v if math.isfinite(v) else str(v) for name, v in values.items()}


def images_of(data: Any) -> list[dict[str, Any]]:
    """What is known of the images of a batch; always with ``img_id`` and ``img_path``.

    Args:
        data: The batch.
    """
    images = []
    for sample in _samples_of(data):
        known = {key: sample.get(key) for key in _META if key in sample}
        boxes = _boxes_of(sample)
        counts = dict(boxes=len(boxes), boxes_finite=bool(boxes.isfinite().all()))
        images.append(dict(img_id=None, img_path=None) | known | counts)
    return images


def _samples_of(data: Any) -> Sequence[Any]:
    return data.get('data_samples', []) if isinstance(data, Mapping) else []


def _boxes_of(sample: Any) -> torch.Tensor:
    boxes = sample.gt_instances.bboxes if 'gt_instances' in sample else torch.zeros(0, 4)
    return getattr(boxes, 'tensor', boxes).detach().cpu()  # mmdet wraps them


def _tensors_of(data: Any) -> dict[str, Any]:
    samples = _samples_of(data)
    inputs = data.get('inputs', []) if isinstance(data, Mapping) else []
    return dict(
        inputs=[image.detach().cpu() for image in inputs],
        bboxes=[_boxes_of(sample) for sample in samples],
        labels=[
            sample.gt_instances.labels.detach().cpu()
            for sample in samples
            if 'gt_instances' in sample
        ],
        img_ids=[sample.get('img_id') for sample in samples],
    )

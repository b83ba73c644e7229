"""An AP of 0 does not pass silently: one line of the log says what may explain it.

Named is what only the training knows: its losses, learning rate and detections. Annotations and
image files are those of the dataset checker, which the line points to.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor
from torchvision.ops import box_area, box_iou

from mpvit.errors import listed

_EVALUATIONS = 2  # that are watched after the start or a resume
_NOTHING = 0.001  # AP below which the hook speaks
_KEPT = 256  # images whose detections are looked at
_SUFFIX = 'bbox_mAP'  # of the number that counts
# Focal loss starts at scores of 0.01, and the first steps raise some of them to 0.1 or 0.2 wherever
# the boxes are; what is below this says nothing.
_SURE = 0.3
_IOU = 0.5
_ENOUGH = 3  # overlaps of a class from which its usual name counts
_LOW = 0.05  # part of the learning rate that is too small to learn with
_TREND = 50  # losses from which a trend shows


class Detected(NamedTuple):
    """Detections and objects of one image; boxes are ``(x1, y1, x2, y2)`` in pixels."""

    boxes: Tensor  # (N, 4)
    scores: Tensor  # (N,) in [0, 1]
    labels: Tensor  # (N,)
    truth: Tensor  # (M, 4)
    truth_labels: Tensor  # (M,)


@HOOKS.register_module()
class ZeroAPHook(Hook):
    """Says the likely causes when the first evaluations of a training find nothing.

    In a distributed run the main process looks at the detections of its share of the validation.
    """

    priority = 'LOW'

    def __init__(self) -> None:
        self._done = 0
        self._samples: list[Any] = []

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Keep the detections of the first images: samples with ``pred_instances``, ``img_id``."""
        if self._done < _EVALUATIONS and is_main_process():
            for sample in (outputs or [])[: _KEPT - len(self._samples)]:
                found = sample.pred_instances
                tensors = (found[key].cpu() for key in ('bboxes', 'scores', 'labels'))
                self._samples.append((sample.img_id, *tensors))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Warn if the AP among the numbers of an evaluation is 0."""
        samples, self._samples = self._samples, []
        if self._done >= _EVALUATIONS or not is_main_process():
            return
        self._done += 1
        ap = next((ap for key, ap in (metrics or {}).items() if key.endswith(_SUFFIX)), None)
        if ap is None or ap >= _NOTHING:
            return
        try:
            causes = _causes(runner, samples)
            found = f'likely causes found: {"; ".join(causes)}' if causes else 'no cause was found'
        except Exception as error:  # it explains a training and must not end one
            found = f'looking for causes failed: {error!r}'
        runner.logger.warning(
            f'AP {max(ap, 0):.3f} after {runner.iter} steps; {found}. '
            'Run mpvit check_dataset DIR to check the data'
        )


def _causes(runner: Runner, samples: Sequence[Any]) -> list[str]:
    loss = runner.message_hub.log_scalars.get('train/loss')
    losses = np.zeros(0) if loss is None else np.asarray(loss.data[0], float)
    causes = loss_causes(losses, runner.iter, runner.max_iters)
    group = runner.optim_wrapper.optimizer.param_groups[0]
    lr, full = group['lr'], group.get('initial_lr', group['lr'])
    if lr < max(_LOW * full, 1e-8):
        causes.append(
            f'the learning rate is {lr:.2g}, far below {full:.2g}: it is still in the warm-up, or '
            'param_scheduler has ended it'
        )
    dataset = runner.val_dataloader.dataset
    while not isinstance(dataset, BaseDataset):  # wrappers
        dataset = dataset.dataset if hasattr(dataset, 'dataset') else dataset.datasets[0]
    return detection_causes(_with_truth(dataset, samples), dataset.metainfo['classes']) + causes


def _with_truth(dataset: BaseDataset, samples: Sequence[Any]) -> list[Detected]:
    truth = {}
    for info in map(dataset.get_data_info, range(len(dataset))):
        truth[info['img_id']] = [i for i in info['instances'] if not i['ignore_flag']]
    return [
        Detected(
            boxes,
            scores,
            labels,
            torch.tensor([i['bbox'] for i in truth[img_id]]).float().reshape(-1, 4),
            torch.tensor([i['bbox_label'] for i in truth[img_id]]).long(),
        )
        for img_id, boxes, scores, labels in samples
    ]


def loss_causes(losses: np.ndarray, step: int, total: int) -> list[str]:
    """Causes that show in the loss of every step, after ``step`` of ``total`` steps."""
    if not np.isfinite(losses).all():
        return ['losses that are not finite: the learning rate is too high']
    if not len(losses):
        return []
    if len(losses) < _TREND:
        return [f'the training had {step} steps of {total} so far, which is few']
    tenth = len(losses) // 10
    first, last = losses[:tenth].mean(), losses[-tenth:].mean()
    change = f'from {first:.2f} to {last:.2f} in {step} of {total} steps'
    if last > 1.2 * first:
        return [f'the loss has grown, {change}: the learning rate is too high']
    if last > 0.95 * first:
        return [f'the loss has hardly fallen, {change}: the learning rate is too low or too high']
    return [f'the loss is falling, {change}: the training may just be too short so far']


def detection_causes(images: Sequence[Detected], classes: Sequence[str]) -> list[str]:
    """Causes that show in what was detected on the validated images."""
    if not any(len(image.truth) for image in images):
        return []
    scores = torch.cat([image.scores for image in images])
    highest = max(scores.tolist(), default=0)
    if highest < _SURE:  # what the boxes are then is chance
        return [
            f'the highest score of {len(scores)} detections is {highest:.3f}: the detector has '
            'not learned to tell objects from background yet'
        ]
    return _class_causes(images, classes) + _box_causes(images)


def _class_causes(images: Sequence[Detected], classes: Sequence[str]) -> list[str]:
    present = {label for image in images for label in image.truth_labels.tolist()}
    predicted: set[int] = set()
    called: dict[int, Counter[int]] = defaultdict(Counter)
    for image in images:
        best = image.scores.argsort(descending=True)[: len(image.truth)]
        predicted |= set(image.labels[best].tolist())
        hits = (box_iou(image.truth, image.boxes) >= _IOU) & (image.scores >= _SURE)
        for label, hit in zip(image.truth_labels.tolist(), hits, strict=True):
            if hit.any():
                called[label][int(image.labels[(image.scores * hit).argmax()])] += 1
    wrong = _wrong_names(called)
    if wrong:
        names = [f'{classes[label]!r} is called {classes[other]!r}' for label, other in wrong]
        return [
            f'boxes are right and their classes are not ({listed(names)}): training and '
            'validation number the classes differently'
        ]
    if not predicted & present:
        detected, real = ([classes[i] for i in sorted(labels)] for labels in (predicted, present))
        return [f'the classes detected ({listed(detected)}) are not those there ({listed(real)})']
    if len(predicted) == 1 and len(present) > 2:
        return [f'the best detections are all of one class, {classes[predicted.pop()]!r}']
    return []


def _wrong_names(called: Mapping[int, Counter[int]]) -> list[tuple[int, int]]:
    """Classes that are nearly always taken for another one, if most classes are."""
    usual = {label: counts for label, counts in called.items() if counts.total() >= _ENOUGH}
    wrong = [
        (label, other)
        for label, counts in usual.items()
        for other, count in counts.most_common(1)
        if other != label and count > 0.6 * counts.total()
    ]
    # everything taken for one and the same class is no exchange of names
    exchanged = len(usual) == 1 or len({other for _, other in wrong}) > 1
    return sorted(wrong) if exchanged and len(wrong) > 0.5 * len(usual) else []


def _box_causes(images: Sequence[Detected]) -> list[str]:
    """Detections that are sure of themselves and lie nowhere on the objects."""
    sure = [image.boxes[image.scores >= _SURE] for image in images]
    truth = [image.truth for image in images]
    pairs = zip(truth, sure, strict=True)
    hits = torch.cat([(box_iou(*pair) >= _IOU).any(1) for pair in pairs]).float()
    if hits.mean() > 0.02:
        return []
    found, real = (box_area(torch.cat(boxes)).sqrt().median() for boxes in (sure, truth))
    return [
        f'no box fits: {hits.mean():.0%} of {len(hits)} objects are covered with an IoU of {_IOU} '
        f'or more (detections have a side of {found:.0f} px in the median, objects {real:.0f} px)'
    ]

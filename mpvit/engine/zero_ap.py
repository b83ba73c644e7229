"""An AP of 0 does not pass silently: what was found to explain it goes to the log."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.dist import is_main_process
from mmengine.fileio import load
from mmengine.hooks import Hook
from mmengine.optim import LinearLR
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mpvit.engine.zero_ap_causes import (
    Detected,
    Progress,
    annotation_causes,
    detection_causes,
    image_causes,
    training_causes,
)

_KEPT = 256  # images whose detections are looked at
_SUFFIX = 'bbox_mAP'  # of the number that counts


@HOOKS.register_module()
class ZeroAPHook(Hook):
    """Says the likely causes when the first evaluations of a training find nothing.

    It looks at the detections and objects of the first images of the validation, the losses and
    the learning rate, both annotation files and the sizes of some images. In a distributed run the
    main process looks at its share.

    Args:
        evaluations: How many evaluations it watches after the start or a resume.
        threshold: AP in [0, 1] below which it speaks.
    """

    priority = 'LOW'

    def __init__(self, evaluations: int = 2, threshold: float = 0.001) -> None:
        self.evaluations, self.threshold = evaluations, threshold
        self._done = 0
        self._samples: list[dict[str, Any]] = []

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Keep some detections.

        Args:
            runner: Not used.
            batch_idx: Not used.
            data_batch: Not used.
            outputs: Samples with ``pred_instances`` and ``img_id``.
        """
        if self._done >= self.evaluations or not is_main_process():
            return
        for sample in (outputs or [])[: _KEPT - len(self._samples)]:
            found = sample.pred_instances
            arrays = {key: found[key].cpu().numpy() for key in ('bboxes', 'scores', 'labels')}
            self._samples.append(dict(arrays, img_id=sample.img_id))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Look for causes if the AP is 0.

        Args:
            runner: Runner of the training.
            metrics: Numbers of the evaluation.
        """
        samples, self._samples = self._samples, []
        if self._done >= self.evaluations or not is_main_process():
            return
        self._done += 1
        ap = next((ap for key, ap in (metrics or {}).items() if key.endswith(_SUFFIX)), None)
        if ap is None or ap >= self.threshold:
            return
        try:
            causes = find_causes(runner, samples)
        except Exception as error:  # it explains a training and must not end one
            runner.logger.warning(f'AP {ap:.3f}; looking for causes failed: {error!r}')
            return
        numbered = [f'\n  {number}. {cause}' for number, cause in enumerate(causes, start=1)]
        text = 'likely causes found:' + ''.join(numbered) if causes else 'no cause was found.'
        runner.logger.warning(f'AP {max(ap, 0):.3f} after {runner.iter} steps; {text}')


def find_causes(runner: Runner, samples: Sequence[dict[str, Any]]) -> list[str]:
    """Look for causes of an AP of 0.

    Args:
        runner: Runner of a training.
        samples: What was detected: ``img_id``, ``bboxes``, ``scores`` and ``labels``.

    Returns:
        A sentence for each cause, those about the data first.
    """
    causes = []
    for where, loader in (
        ('training', runner.train_dataloader),
        ('validation', runner.val_dataloader),
    ):
        dataset = _innermost(loader.dataset)
        if isinstance(dataset, BaseDataset):
            causes += _data_causes(dataset, where)
    if isinstance(dataset, BaseDataset):
        images = _with_truth(dataset, samples)
        causes += detection_causes(images, dataset.metainfo['classes'])
    return causes + training_causes(_progress(runner))


def _data_causes(dataset: BaseDataset, where: str) -> list[str]:
    infos = (dataset.get_data_info(index) for index in range(len(dataset)))
    kept, images = 0, []
    for info in infos:
        kept += sum(not instance['ignore_flag'] for instance in info['instances'])
        images.append((info['img_path'], info['width'], info['height']))
    return annotation_causes(
        load(dataset.ann_file, file_format='json'), kept, where
    ) + image_causes(images, where)


def _with_truth(dataset: BaseDataset, samples: Sequence[dict[str, Any]]) -> list[Detected]:
    wanted = {sample['img_id'] for sample in samples}
    truth = {}
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        if info['img_id'] in wanted:
            truth[info['img_id']] = [i for i in info['instances'] if not i['ignore_flag']]
    return [
        Detected(
            boxes=sample['bboxes'],
            scores=sample['scores'],
            labels=sample['labels'],
            truth=np.array([i['bbox'] for i in truth[sample['img_id']]], float).reshape(-1, 4),
            truth_labels=np.array([i['bbox_label'] for i in truth[sample['img_id']]], int),
        )
        for sample in samples
    ]


def _progress(runner: Runner) -> Progress:
    loss = runner.message_hub.log_scalars.get('train/loss')
    warm_up = 0
    for scheduler in runner.param_schedulers or []:
        if isinstance(scheduler, LinearLR) and scheduler.start_factor < scheduler.end_factor:
            unit = len(runner.train_dataloader) if scheduler.by_epoch else 1
            warm_up = max(warm_up, scheduler.end * unit)
    group = runner.optim_wrapper.optimizer.param_groups[0]
    return Progress(
        step=runner.iter,
        total=runner.max_iters,
        lr=group['lr'],
        full_lr=group.get('initial_lr', group['lr']),
        warm_up=warm_up,
        losses=np.zeros(0) if loss is None else np.asarray(loss.data[0], float),
    )


def _innermost(dataset: Any) -> Any:
    """The dataset inside wrappers; of several the first."""
    while True:
        inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
        if inner[0] is None:
            return dataset
        dataset = inner[0]

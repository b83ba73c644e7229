"""Exported detectors, run by another runtime and used like any detector of mmdet."""

import copy
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.models import BaseDetector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mpvit.errors import UserError
from mpvit.files.records import check_form
from mpvit.models.runtimes import RUNTIMES, Arrays, Network, open_network, reason

#: Kinds of what is known of a file.
_FACTS = dict(classes=[str], mean=[float], std=[float], channel_order=str)


def pixel_facts(data_preprocessor: Mapping[str, Any]) -> dict[str, Any]:
    """What mmdet's data preprocessor of a config does to pixels, for the file's metadata."""
    return dict(
        mean=[float(value) for value in data_preprocessor.get('mean') or [0.0]],
        std=[float(value) for value in data_preprocessor.get('std') or [1.0]],
        channel_order='RGB' if data_preprocessor.get('bgr_to_rgb') else 'BGR',
    )


def _fault(outputs: Arrays, images: int, side: int, classes: int) -> str | None:
    """What a file gives for some images, up to ``side`` pixels long, that no detector would."""
    boxes, scores, labels = outputs
    kinds = ''.join(
        values.dtype.kind if isinstance(values, np.ndarray) else '?' for values in outputs
    )
    shapes = [np.shape(values) for values in outputs]
    if kinds != 'ffi' or len(shapes[1]) != 2 or shapes[0] != (*shapes[1], 4):
        return 'arrays of another kind than a detector'
    if shapes[2] != shapes[1] or len(boxes) != images:
        return 'arrays of another size than a detector'
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        return 'NaN or infinity: its weights are damaged'
    if not ((labels >= 0) & (labels < classes)).all():
        return f'labels beyond its {classes} classes'
    if (np.abs(boxes) > 100 * side).any() or not ((scores >= 0) & (scores <= 1)).all():
        return 'boxes far from the image, or scores beyond 0 to 1'
    return None


def _fact(file: str, network: Network, name: str) -> Any:
    """What a file says of itself, which anybody may have edited."""
    try:
        value = json.loads(network.facts[name])
        check_form(value, _FACTS[name])
    except (KeyError, ValueError, RecursionError) as error:
        raise UserError(f'{file}: its {name} cannot be read; export the detector again') from error
    return value


@MODELS.register_module()
class ExportedDetector(BaseDetector):
    """A detector that runs in another runtime; for inference only.

    It takes what mmdet's test pipeline gives. Normalisation is part of the exported graph.

    Args:
        file: ``.onnx``, ``.xml``, ``.engine`` or ``.pt2``.
        data_preprocessor: That of the detector's config; it has to be the one exported with.
        bbox_head: The detector's, for its ``num_classes``.
        device: Where it runs; see `mpvit.models.runtimes.open_network`.
        network: The opened file, if it is open already.
        **settings: Other settings of the detector, which play no part any more.

    Raises:
        UserError: The file cannot be used, or was exported with another config.
    """

    def __init__(
        self,
        file: str,
        data_preprocessor: dict[str, Any],
        bbox_head: Mapping[str, Any],
        device: str = 'cpu',
        network: Network | None = None,
        **settings: Any,
    ) -> None:
        if '://' in file:
            raise UserError(f'{file}: exported detectors are not downloaded; name a file')
        network = network or open_network(Path(file), device)
        classes = _fact(file, network, 'classes')
        if len(classes) != bbox_head['num_classes']:
            raise UserError(
                f'{file} has {len(classes)} classes ({", ".join(classes[:3])}, ...), but the '
                f'config has {bbox_head["num_classes"]} (model.bbox_head.num_classes); use the '
                'config that it was exported with'
            )
        for name, value in pixel_facts(data_preprocessor).items():
            exported = _fact(file, network, name)
            if exported != value:
                raise UserError(
                    f'{file} was exported with {name} {exported}, but the config says {value} '
                    '(model.data_preprocessor); use the config that it was exported with'
                )
        super().__init__({**data_preprocessor, 'mean': None, 'std': None})
        self.file, self.network = file, network
        self.dataset_meta = dict(classes=tuple(classes))

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: list[DetDataSample], rescale: bool = True
    ) -> list[DetDataSample]:
        """Detect.

        Args:
            batch_inputs: Pixels from 0 to 255 in the file's channel order, ``(B, 3, H, W)``.
            batch_data_samples: With ``img_shape`` and ``ori_shape``, ``(h, w)``.
            rescale: Give boxes in pixels of the original image rather than of the resized one.

        Returns:
            The samples with ``pred_instances``: ``bboxes``, ``scores``, ``labels``.

        Raises:
            UserError: The file was exported for another batch or size, its runtime fails, or it
                gives what a detector does not, such as NaN where its weights hold it.
        """
        outputs = self._detections(**self.network_inputs(batch_inputs, batch_data_samples))
        results = []
        for sample, boxes, scores, labels in zip(batch_data_samples, *outputs, strict=True):
            (height, width), (to_height, to_width) = sample.img_shape[:2], sample.ori_shape[:2]
            scale = (to_width / width, to_height / height) if rescale else (1, 1)
            results.append(
                InstanceData(
                    bboxes=batch_inputs.new_tensor(boxes * np.array([*scale, *scale], np.float32)),
                    scores=batch_inputs.new_tensor(scores),
                    labels=torch.as_tensor(labels, device=batch_inputs.device),
                )
            )
        return self.add_pred_to_datasample(batch_data_samples, results)

    def network_inputs(
        self, inputs: Tensor, data_samples: Sequence[DetDataSample]
    ) -> dict[str, NDArray[Any]]:
        """What the network is given, as `mpvit.export.graph.INPUTS` says.

        Args:
            inputs: As ``batch_inputs`` of `predict`.
            data_samples: As ``batch_data_samples``.

        Raises:
            UserError: The file was exported for another batch or size.
        """
        pixels = self._fitted(inputs).round().clamp(0, 255).to('cpu', torch.uint8)
        shapes = [sample.img_shape[:2] for sample in data_samples]
        return dict(
            images=np.ascontiguousarray(pixels.numpy()), sizes=np.array(shapes, dtype=np.int64)
        )

    def _detections(self, images: NDArray[np.uint8], sizes: NDArray[np.int64]) -> Arrays:
        """What the file gives, which may be anybody's."""
        try:
            outputs = self.network(images, sizes)
        except Exception as error:  # the runtimes have many of their own
            raise UserError(
                f'{self.file} does not run ({reason(error)}); lower the batch size if memory is '
                'full, else export the detector again'
            ) from error
        wrong = _fault(outputs, len(images), max(images.shape), len(self.dataset_meta['classes']))
        if wrong is not None:
            raise UserError(f'{self.file} gives {wrong}; export the detector again')
        return outputs

    def _fitted(self, images: Tensor) -> Tensor:
        """Padded to the size that the file was exported for, if it was for one."""
        batch, _, height, width = self.network.shape
        if batch is not None and batch != len(images):
            raise UserError(
                f'{self.file} takes batches of {batch}, not of {len(images)}; set the batch size '
                'to that (test_dataloader.batch_size), or export without --batch-size'
            )
        if height is None or width is None:
            height, width = padded(images.shape[2:], self.network.multiple)
        down, right = height - images.shape[2], width - images.shape[3]
        if down < 0 or right < 0:
            raise UserError(
                f'{self.file} takes images of up to {height}x{width} (height x width), but one is '
                f'{images.shape[2]}x{images.shape[3]} after the test pipeline; export with '
                'another --size or without'
            )
        return F.pad(images, (0, right, 0, down))

    def extract_feat(self, *arguments: Any, **named: Any) -> Any:
        """Not available: an exported detector gives detections only, and cannot be trained."""
        raise NotImplementedError('an exported detector gives detections only')

    loss = _forward = extract_feat


def padded(size: Sequence[int], multiple: int) -> tuple[int, int]:
    """Height and width, rounded up to multiples."""
    height, width = (-(-side // multiple) * multiple for side in size)
    return height, width


def use_exported(cfg: Config, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Let a config test an exported file in the place of a detector and its checkpoint.

    The config, whose ``load_from`` is the file, is changed in place; the settings are what was
    asked of inference: ``dtype``, ``compile`` and ``fold``.

    Returns:
        What is to be recorded instead of them.

    Raises:
        UserError: They were asked for something that is decided when exporting.
    """
    _check_settings(cfg.load_from, **settings)
    model = cfg.model.get('module', cfg.model)  # test-time augmentation wraps the detector
    model.update(type='ExportedDetector', file=str(cfg.load_from))
    if Path(model.file).suffix.lower() == '.engine':
        model.device = 'cuda'
    cfg.load_from = None
    return dict(runtime=RUNTIMES[Path(model.file).suffix.lower()])


def load_exported(
    cfg: Config,
    file: str | os.PathLike[str],
    device: str = 'cpu',
    network: Network | None = None,
    **settings: Any,
) -> ExportedDetector:
    """An exported detector, as `mpvit.inference.loading.load_detector` returns detectors.

    The config is that which it was exported with, the network is the file if it is open already,
    and the settings are as for `use_exported`.

    Raises:
        UserError: The file cannot be used, or does not fit the config or the settings.
    """
    _check_settings(file, **settings)
    own = dict(file=str(file), device=device, network=network)
    model = ExportedDetector(**{**copy.deepcopy(cfg.model), **own})
    model.cfg = cfg
    return model.eval()


def _check_settings(
    file: str | os.PathLike[str], dtype: str = 'fp32', compile: bool = False, fold: bool = True
) -> None:
    if dtype != 'fp32' or compile or not fold:
        raise UserError(
            f'{file}: precision, compilation and folding are decided when exporting; leave out '
            '--dtype, --compile and --no-fold'
        )

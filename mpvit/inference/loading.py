"""Detectors for use in Python, and what their configs say of images and classes."""

import copy
import os
from collections.abc import Sequence
from typing import Any

from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader
from torch import nn

import mpvit.register  # noqa: F401  (a detector is built from mmdet's parts and ours)
from mpvit.checkpoints.class_layers import class_names
from mpvit.checkpoints.compatibility import WeightsError, add_neck_biases
from mpvit.checkpoints.formats import weights_of
from mpvit.config.presets import tta_pipeline
from mpvit.config.reading import leaf_datasets, load_config, refuse_classifier
from mpvit.config.stored import config_name, own_config_hint
from mpvit.engine.build import explained
from mpvit.engine.hooks.checkpoint_fit import check_loadable
from mpvit.engine.hooks.prepare_inference import prepare
from mpvit.errors import UserError
from mpvit.models.detector import check_neck
from mpvit.models.exported import load_exported
from mpvit.models.runtimes import is_exported


def load_detector(
    config: str | os.PathLike[str],
    checkpoint: str | os.PathLike[str],
    device: str = 'cpu',
    *,
    dtype: str = 'fp32',
    compile: bool = False,
    fold: bool = True,
) -> nn.Module:
    """Build a detector, load a checkpoint that fits it, ours or an official one, and prepare it.

    The result goes into mmdet's `inference_detector`. It is for inference only: with ``fold`` its
    tensors are not those of the checkpoint any more.

    Args:
        config: Config file.
        checkpoint: Checkpoint file or URL, or an exported detector, ``.onnx`` or ``.xml``, whose
            precision and so on were decided when it was exported.
        device: Where the detector runs, such as ``'cuda:0'``.
        dtype: 'fp32', 'bf16' or 'fp16'; see `prepare`.
        compile: Compile it at the first image; see `prepare`.
        fold: Fold batch norms into convolutions.

    Returns:
        The detector in eval mode, with ``cfg`` and ``dataset_meta`` as mmdet expects them. Its
        ``classes`` are those of the checkpoint, else of the config's dataset, else numbers.

    Raises:
        UserError: The config or the checkpoint cannot be read, they do not fit together, or
            the dtype or compilation is not to be had here.
    """
    cfg = load_config(config)
    refuse_classifier(cfg)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    if is_exported(checkpoint):
        with explained(cfg):
            return load_exported(cfg, checkpoint, device, dtype=dtype, compile=compile, fold=fold)
    settings = copy.deepcopy(cfg.model)
    with explained(cfg):
        settings.backbone.pop('init_cfg', None)  # the checkpoint holds the backbone
        model = revert_sync_batchnorm(MODELS.build(settings))
    check_neck(model, settings, cfg.filename)
    content = CheckpointLoader.load_checkpoint(str(checkpoint), 'cpu', 'silent')
    add_neck_biases(content, model.state_dict())
    try:
        check_loadable(content, model)
    except UserError as error:
        fits = isinstance(error, WeightsError)
        hint = '' if fits else own_config_hint(checkpoint, cfg)
        raise UserError(f'{checkpoint}: {error}{hint}') from error
    model.load_state_dict(weights_of(content))
    model.cfg = cfg
    model.dataset_meta = dict(classes=_names_by_label(cfg, class_names(content)))
    return prepare(model.to(device), dtype, compile, fold)


def _names_by_label(cfg: Config, known: Sequence[str] | None) -> tuple[str, ...]:
    """Those that the checkpoint holds, else those of the config's dataset, else numbers."""
    count = (cfg.model.get('bbox_head') or {}).get('num_classes')
    names = tuple(known or ())
    if not names and (cfg.get('test_dataloader') or cfg.get('val_dataloader')):
        dataset = evaluated_dataset(cfg)
        # asked of the class, since a dataset that is built reads its files
        kind = DATASETS.get(dataset.type) if isinstance(dataset.type, str) else dataset.type
        names = tuple(kind._load_metainfo(dataset.get('metainfo')).get('classes') or ())
    if count is None or len(names) == count:
        return names
    return tuple(f'class {label}' for label in range(count))


def evaluated_dataset(cfg: Config) -> Any:
    """Config of the dataset of the test, out of its wrappers, or else of the validation.

    Raises:
        UserError: There is none.
    """
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if loader is None:
        raise UserError(f'{config_name(cfg)} has no test_dataloader, whose pipeline is needed')
    return next(leaf_datasets(loader.dataset))


def image_pipeline(cfg: Config, tta: bool = False) -> Compose:
    """The test pipeline, given images in RGB (``img``, and ``img_id``) instead of reading them.

    With ``tta`` it gives the mirror image as well. The complete config stays as it is.

    Raises:
        UserError: There is none, or it does not read images. The pipeline itself raises it for an
            image that does not go through, such as a line of one pixel.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    steps = copy.deepcopy(list(evaluated_dataset(cfg).pipeline))
    if tta:
        steps = tta_pipeline(cfg, steps)
    steps = [step for step in steps if step.type != 'LoadAnnotations']
    places = [place for place, step in enumerate(steps) if step.type == 'LoadImageFromFile']
    if not places:
        raise UserError(f'the test pipeline of {config_name(cfg)} has no LoadImageFromFile')
    place = places[0]
    float32 = steps[place].get('to_float32', False)
    steps[place : place + 1] = [_to_bgr, dict(type='LoadImageFromNDArray', to_float32=float32)]
    return _ImagePipeline(steps)


class _ImagePipeline(Compose):
    def __call__(self, data: dict[str, Any]) -> dict[str, Any] | None:
        height, width = data['img'].shape[:2]
        try:
            return super().__call__(data)
        except (ValueError, RuntimeError, ArithmeticError) as error:
            raise UserError(
                f'an image of {width} x {height} pixels does not go through the test pipeline: '
                f'{error}'
            ) from error


def _to_bgr(results: dict[str, Any]) -> dict[str, Any]:
    """The only place where colours change their order: mmdet's pipelines work in BGR."""
    return {**results, 'img': results['img'][..., ::-1]}

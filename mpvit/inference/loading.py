"""Detectors for use in Python."""

import copy
import os

from mmdet.registry import MODELS
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader
from torch import nn

import mpvit.register  # noqa: F401  (a detector is built from mmdet's parts and ours)
from mpvit.checkpoints.class_layers import class_names
from mpvit.checkpoints.formats import weights_of
from mpvit.config.reading import load_config
from mpvit.engine.hooks.checkpoint_fit import check_loadable
from mpvit.engine.hooks.prepare_inference import prepare
from mpvit.errors import UserError
from mpvit.inference.pipeline import names_by_label
from mpvit.models.exported import is_exported, load_exported

__all__ = ['load_detector', 'prepare']


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
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    if is_exported(checkpoint):
        return load_exported(cfg, checkpoint, device, dtype=dtype, compile=compile, fold=fold)
    settings = copy.deepcopy(cfg.model)
    settings.backbone.pop('init_cfg', None)  # the checkpoint holds the backbone
    model = revert_sync_batchnorm(MODELS.build(settings))
    content = CheckpointLoader.load_checkpoint(str(checkpoint), 'cpu')
    try:
        check_loadable(content, model)
    except UserError as error:
        raise UserError(f'{checkpoint}: {error}') from error
    model.load_state_dict(weights_of(content))
    model.cfg = cfg
    model.dataset_meta = dict(classes=names_by_label(cfg, class_names(content)))
    return prepare(model.to(device), dtype, compile, fold)

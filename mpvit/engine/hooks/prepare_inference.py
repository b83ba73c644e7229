"""A trained detector made ready for inference: norms folded, lower precision, compiled."""

import logging
import os
import shutil
import sysconfig
from pathlib import Path
from typing import Any

import torch
from mmcv.cnn import fuse_conv_bn
from mmdet.models import DeformableDETR
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from mpvit.engine.hooks import detector_of
from mpvit.errors import UserError
from mpvit.models.lean import use_lean_layers
from mpvit.models.timm_backbone import TimmBackbone

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


def chosen_device(name: str | None = None) -> str:
    """The device that was asked for, tried, or the default one.

    Args:
        name: Such as ``'cuda:1'``; None for a GPU where there is one, else the CPU.

    Raises:
        UserError: There is no such device, or it is full.
    """
    if name is None:
        return 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        torch.empty(1, device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f'device {name} is not to be had here ({reason}); cpu is') from error
    return name


def prepare(
    model: nn.Module, dtype: str = 'fp32', compile: bool = False, fold: bool = True
) -> nn.Module:
    """Make a detector ready for inference, in place: it cannot be trained or saved any more.

    It goes into eval mode, batch norms are folded into the convolutions before them, weights are
    laid out channels-last, linear layers run as convolutions on the CPU, and no gradients are kept.
    What docs/precision.md says of the lower precisions in short: the backbone,
    the neck, the encoder and the values that the decoder looks up are computed in ``dtype``;
    sampling locations, queries, boxes and scores stay float32.

    Args:
        model: Detector with its final weights, on its device.
        dtype: 'fp32', 'bf16' or 'fp16'.
        compile: Compile the backbone, the neck and the transformer's layers with `torch.compile`
            at the first image; needs a C++ compiler.
        fold: Fold batch norms. Layer and group norms depend on the image and stay.

    Returns:
        The same model.

    Raises:
        UserError: The dtype is unknown or cannot be used here, or there is no compiler.
    """
    if dtype not in DTYPES:
        raise UserError(f'dtype {dtype!r} is unknown; choose from {", ".join(DTYPES)}')
    if (dtype != 'fp32' or compile) and not isinstance(model, DeformableDETR):
        raise UserError(
            f'{type(model).__name__} is not a Deformable DETR; leave dtype and compile out'
        )
    device = next(model.parameters()).device
    if dtype != 'fp32':
        _check_arithmetic(dtype, device)
    if compile:
        _check_compiler()
    model.eval()
    if fold:
        _fold(model)
    model.requires_grad_(False)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch has it
    if dtype != 'fp32':
        _lower_precision(model, DTYPES[dtype])
    if device.type == 'cpu' and not compile:
        use_lean_layers(model)
    if compile:
        _compile(model)
    return model


@HOOKS.register_module()
class PrepareInferenceHook(Hook):
    """Calls `prepare` before a test, once the checkpoint is loaded; never during training."""

    priority = 'LOWEST'

    def __init__(self, dtype: str = 'fp32', compile: bool = False, fold: bool = True) -> None:
        self.settings: dict[str, Any] = dict(dtype=dtype, compile=compile, fold=fold)

    def before_test(self, runner: Runner) -> None:
        """Prepare the detector inside whatever wraps it."""
        prepare(detector_of(runner), **self.settings)
        runner.logger.info('Inference: ' + ', '.join(f'{k} {v}' for k, v in self.settings.items()))


def _fold(model: nn.Module) -> None:
    """Fold batch norms, but not those of timm, where they may hold the activation too."""
    for part in model.children():
        if not isinstance(part, TimmBackbone):
            fuse_conv_bn(part)


def _lower_precision(model: DeformableDETR, dtype: torch.dtype) -> None:
    """Cast the parts that hold nearly all arithmetic; hooks cast what enters them.

    Boxes need more digits than bfloat16 has: 8 bits are 3 pixels of 800. So the decoder's
    queries, its reference points and the head, 1% of the arithmetic, stay float32. This agrees
    better with float32 than autocast does, and without its casts of every weight at every call.
    """
    attentions = [layer.cross_attn for layer in model.decoder.layers]
    lookups = [module for a in attentions for module in (a.value_proj, a.output_proj)]
    for part in (model.backbone, model.neck, model.encoder, *lookups):
        part.to(dtype)
    _cast_inputs(model.backbone, dtype)
    # the sizes of the valid area go into sampling locations
    _cast_inputs(model.encoder, dtype, exact=('valid_ratios',))
    if model.as_two_stage:
        _cast_inputs(model.memory_trans_fc, torch.float32)


def _cast_inputs(module: nn.Module, dtype: torch.dtype, exact: tuple[str, ...] = ()) -> None:
    """Cast floating-point arguments of a module; those named in ``exact`` to float32."""

    def cast(value: Any, dtype: torch.dtype = dtype) -> Any:
        is_float = isinstance(value, Tensor) and value.is_floating_point()
        return value.to(dtype) if is_float else value

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        named = {k: cast(v, torch.float32 if k in exact else dtype) for k, v in kwargs.items()}
        return tuple(map(cast, args)), named

    module.register_forward_pre_hook(hook, with_kwargs=True)


def _compile(model: DeformableDETR) -> None:
    """Compile what runs without a break; between these parts mmdet reads sizes from tensors."""
    for part in (model.backbone, model.neck, *model.encoder.layers, *model.decoder.layers):
        part.compile(dynamic=True)  # images differ in size


def _check_arithmetic(dtype: str, device: torch.device) -> None:
    """Refuse what the device cannot do; say where it can but gains nothing."""
    if device.type == 'cuda':
        if dtype == 'bf16' and not torch.cuda.is_bf16_supported():
            raise UserError(f'dtype bf16: {device} has no bfloat16; choose fp16')
    elif device.type == 'cpu':
        # not every build of torch has the probe, and without oneDNN there is no gain
        probe = getattr(torch.ops.mkldnn, f'_is_mkldnn_{dtype}_supported', lambda: False)
        if not probe():
            print_log(
                f'This CPU has no {dtype} arithmetic: slower than fp32, for testing only',
                logger='current',
                level=logging.WARNING,
            )


def _check_compiler() -> None:
    """What `torch.compile` needs; without it, it fails at the first image in many lines."""
    compiler = os.environ.get('CXX', 'g++')
    if shutil.which(compiler) is None:
        raise UserError(f'compile needs a C++ compiler and {compiler} was not found; install g++')
    header = Path(sysconfig.get_path('include')) / 'Python.h'
    if not header.is_file():
        raise UserError(f'compile needs {header}; install the development files of Python')

"""The detectors that are compared: ours, and the same model and weights on the stock path.

The stock path is what the same config would be without this project's work on speed: mmdet's
detector and head, mmcv's own fallback attention, contiguous maps, no folding, mmdet's matching
cost and one optimizer group per parameter.
"""

import mpvit.register  # noqa: F401  (mmcv's ops and mmdet can be imported from here on)

# isort: split
import copy
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import Tensor, nn

import benchmarks.contiguous  # noqa: F401  (registers ContiguousMPViT)
from benchmarks._synthetic import SEED, image_tensor
from mpvit.config.reading import load_config
from mpvit.inference import prepare
from mpvit.model_info.measure import made_up
from mpvit.ops.mmcv_bridge import stock_attention

CONFIGS = Path(__file__).resolve().parent.parent / 'configs' / 'deformable_detr'
# of weights that start at zero, or too small for the image to matter
DEVIATIONS = {
    r'\.sampling_offsets$': 0.05,
    r'\.attention_weights$': 0.1,
    r'\.(value|output)_proj$': 0.1,
    r'\.cls_branches\.\d$': 0.05,
    r'\.reg_branches\.\d\.4$': 0.05,
}
SMALL = (
    'model.encoder.num_layers=2',
    'model.decoder.num_layers=2',
    'model.num_queries=100',
)


def on_stock_attention(action: Callable[[], object]) -> Callable[[], object]:
    """An action that runs on mmcv's own fallback attention."""

    def run() -> object:
        with stock_attention():
            return action()

    return run


def config_of(name: str, quick: bool = False, options: Sequence[str] = ()) -> Config:
    """A config of configs/deformable_detr, without pretrained weights.

    Args:
        name: File name without its ending.
        quick: Make the model small: fewer layers, a few queries, MPViT-Tiny.
        options: Overrides as on the command line.
    """
    config = load_config(CONFIGS / f'{name}.py', [*(SMALL if quick else ()), *options])
    init_default_scope('mmdet')
    config.model.backbone.pop('init_cfg', None)
    if quick and config.model.backbone.type == 'MPViT':
        config.model.backbone.arch = 'tiny'
        config.model.neck.in_channels = [176, 216, 216]
    return config


def our_model(config: Config) -> nn.Module:
    """Our detector with weights that act like trained ones, in eval mode.

    Norms hold the statistics of an image, offsets and attention weights depend on the query, and
    scores differ from query to query.
    """
    torch.manual_seed(SEED)
    model = revert_sync_batchnorm(MODELS.build(copy.deepcopy(config.model)))
    MMLogger.get_current_instance().setLevel('WARNING')  # it lists every parameter
    model.init_weights()
    _settle_norms(model.backbone)
    for name, module in model.named_modules():
        std = next((std for ending, std in DEVIATIONS.items() if re.search(ending, name)), None)
        if std:
            nn.init.normal_(module.weight, std=std)
    return model.eval()


@torch.no_grad()
def _settle_norms(backbone: nn.Module) -> None:
    """Set the statistics of batch norms to those of an image."""
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None
        norm.train()
    backbone(image_tensor((256, 320)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def prepared(model: nn.Module, dtype: str = 'fp32') -> nn.Module:
    """A copy of our detector as the project runs it: norms folded, layout set.

    Args:
        model: Ours.
        dtype: ``'fp32'``, ``'bf16'`` or ``'fp16'``.
    """
    return prepare(copy.deepcopy(model), dtype=dtype)


def stock_model(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    """The same detector on the stock path, in eval mode.

    Args:
        config: Config of ours.
        weights: State dict of ours.
    """
    model = revert_sync_batchnorm(MODELS.build(stock_settings(config.model)))
    model.load_state_dict(weights)
    return model.to(memory_format=torch.contiguous_format).eval()


def stock_settings(model: ConfigDict) -> ConfigDict:
    """Model settings with mmdet's own parts in the place of ours."""
    model = copy.deepcopy(model)
    model.type = 'DeformableDETR'
    model.bbox_head.type = 'DeformableDETRHead'
    if model.backbone.type == 'MPViT':
        model.backbone.type = 'ContiguousMPViT'
    for cost in model.train_cfg.assigner.match_costs:
        if cost.type not in ('FocalLossCost', 'IoUCost'):
            cost.type = 'BBoxL1Cost'
    model.train_cfg.assigner.type = 'HungarianAssigner'
    return model


def samples_of(size: tuple[int, int], batch: int = 1) -> list[DetDataSample]:
    """Data samples of unpadded images with a few objects each."""
    return made_up(size, torch.device('cpu'), batch)[1]


def prediction(model: nn.Module, size: tuple[int, int]) -> Callable[[], list]:
    """Inference: from the normalised image to detections."""
    images, samples = image_tensor(size), samples_of(size)

    @torch.no_grad()
    def run() -> list:
        return model.predict(images, copy.deepcopy(samples))

    return run


def raw_outputs(
    model: nn.Module, size: tuple[int, int], images: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Logits ``(1, queries, classes)`` and relative boxes ``(1, queries, 4)`` of the last layer."""
    with torch.no_grad():
        features = model.extract_feat(image_tensor(size) if images is None else images)
        hidden = model.forward_transformer(features, samples_of(size))
        logits, boxes = model.bbox_head.forward(**hidden)
    return logits[-1], boxes[-1]


def stock_optimizer(config: Config, model: nn.Module) -> OptimWrapper:
    """AdamW as mmengine builds it, with the settings of our config, one group per parameter."""
    ours = config.optim_wrapper
    settings = dict(
        type='OptimWrapper',
        optimizer=dict(
            type='AdamW', lr=ours.optimizer.lr, weight_decay=ours.optimizer.weight_decay
        ),
        clip_grad=ours.clip_grad,
        paramwise_cfg=dict(custom_keys=ours.paramwise_cfg.custom_keys),
    )
    return build_optim_wrapper(model, settings)


def training_step(
    model: nn.Module, optimizer: OptimWrapper, size: tuple[int, int], batch: int
) -> Callable[[], dict]:
    """Forward, loss, backward and update on raw images."""
    images = (image_tensor(size, batch) * 50 + 128).clamp(0, 255).to(torch.uint8)
    data = dict(inputs=list(images), data_samples=samples_of(size, batch))
    model.train()

    def run() -> dict:
        return model.train_step(copy.deepcopy(data), optimizer)

    return run

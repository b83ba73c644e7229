"""Our classifiers beside the logits of the official ones."""

import json
from pathlib import Path

import numpy as np
import parity_fill
import torch
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

import mpvit.register  # noqa: F401  (makes mmdet importable)
from mpvit.config.reading import load_config

ROOT = Path(__file__).resolve().parent.parent
PARITY = ROOT / 'tests' / 'data' / 'parity'
CONFIGS = {
    'mpvit_tiny': 'mpvit_t_in1k_300e',
    'mpvit_xsmall': 'mpvit_xs_in1k_300e',
    'mpvit_small': 'mpvit_s_in1k_300e',
    'mpvit_base': 'mpvit_b_in1k_300e',
}
TOLERANCE = 5e-5  # absolute, of float32 against float64


def official_weights(name: str, seed: int = 0) -> dict[str, Tensor]:
    """Tensors of an official ImageNet file, ``mpvit_tiny`` and so on, of fixed numbers."""
    listed = json.loads((PARITY / 'keys' / f'backbone_{name}.json').read_text())
    values = parity_fill.fill_state_dict(listed['keys'], listed['aliases'], seed)
    width = values['mhca_stages.3.aggregate.conv.weight'].shape[0]
    for key, shape in (('cls_head.cls.weight', (1000, width)), ('cls_head.cls.bias', (1000,))):
        values[key] = parity_fill.fill(key, shape, seed)
    return {key: torch.from_numpy(value) for key, value in values.items()}


def inputs(name: str) -> tuple[Tensor, np.ndarray]:
    """Images ``(2, 3, 224, 224)`` and the official logits ``(2, 1000)`` in float64."""
    fixture = np.load(PARITY / f'classifier_{name}.npz')
    shape = tuple(int(side) for side in fixture['input_shape'])
    images = parity_fill.image(shape, int(fixture['input_seed']))
    return torch.from_numpy(images), fixture['f64.logits']


def classifier(name: str, file: Path) -> nn.Module:
    """The classifier of a config with the weights of an official file, in eval mode."""
    settings = load_config(ROOT / 'configs' / 'imagenet' / f'{CONFIGS[name]}.py').model
    init_default_scope('mmpretrain')
    from mmpretrain.registry import MODELS

    model: nn.Module = MODELS.build(settings)
    init_default_scope('mmdet')
    model.load_state_dict(CheckpointLoader.load_checkpoint(str(file))['state_dict'])
    return model.eval()


def largest_error(name: str, model: nn.Module) -> float:
    """Largest absolute difference of logits from the official ones in float64."""
    images, expected = inputs(name)
    images = images.to(next(model.parameters()).dtype)
    with torch.no_grad():
        logits = model(images).double().numpy()
    assert np.isfinite(logits).all()
    return float(np.abs(logits - expected).max())

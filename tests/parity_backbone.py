"""Our backbones beside the numbers of the official ones."""

import json
from pathlib import Path

import parity_check
import parity_fill
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import Tensor, nn

import mpvit.register  # noqa: F401  (makes mmdet importable)
from mpvit.checkpoints.names import our_name

PARITY = Path(__file__).resolve().parent / 'data' / 'parity'
BACKBONES = {
    'mpvit_tiny': dict(type='MPViT', arch='tiny'),
    'mpvit_xsmall': dict(type='MPViT', arch='xsmall'),
    'mpvit_small': dict(type='MPViT', arch='small'),
    'mpvit_base': dict(type='MPViT', arch='base'),
    'coat_lite_small': dict(type='CoaT', arch='lite_small'),
    'coat_small': dict(type='CoaT', arch='small'),
}


class BackboneParity:
    """One backbone with the fixtures' weights and all four outputs.

    Args:
        name: A key of `BACKBONES`.
    """

    def __init__(self, name: str) -> None:
        init_default_scope('mmdet')
        self.fixture = parity_check.Fixture(PARITY / f'backbone_{name}.npz')
        keys = json.loads((PARITY / 'keys' / f'backbone_{name}.json').read_text())
        official = parity_fill.fill_state_dict(keys['keys'], keys['aliases'], seed=0)
        self.names = {key: our_name(key) for key in official}
        self.model: nn.Module = MODELS.build(dict(BACKBONES[name], out_indices=(0, 1, 2, 3)))
        self.model.load_state_dict(
            {self.names[key]: torch.from_numpy(value) for key, value in official.items()}
        )
        self.key = '{}.stage{}' if name.startswith('mpvit') else '{}.x{}_nocls'
        self.first = 2 if name.startswith('mpvit') else 1  # number of the first output

    def image(self, tag: str, dtype: torch.dtype = torch.float32) -> Tensor:
        """Input of the fixtures: 'A', 'B' with odd sizes, or 'train'."""
        shape = tuple(self.fixture[f'{tag}.input_shape'])
        return torch.from_numpy(
            parity_fill.image(shape, int(self.fixture[f'{tag}.input_seed']))
        ).to(dtype)

    def errors(self, double: bool = False) -> list[float]:
        """Largest relative error of each output over two inputs, in float32 or float64."""
        dtype = torch.float64 if double else torch.float32
        self.model.to(dtype).eval()
        worst = [0.0] * 4
        for tag in 'AB':
            with torch.no_grad():
                outputs = self.model(self.image(tag, dtype))
            for index, output in enumerate(outputs):
                key = self.key.format(tag, index + self.first)
                assert self.fixture.stats_error(key, output) < 2e-5, key
                worst[index] = max(worst[index], self.fixture.slice_error(key, output, f64=double))
        return worst

"""The lean feed-forward network equals mmcv's."""

import copy

import pytest
import torch
from mmcv.cnn.bricks.transformer import FFN
from torch import nn

from mpvit.models.lean import LeanFFN, use_lean_layers


def lean_and_mmcvs(**settings):
    torch.manual_seed(0)
    mmcvs = FFN(32, 64, **settings)
    lean = copy.deepcopy(mmcvs)
    use_lean_layers(lean)
    return lean, mmcvs


@pytest.mark.parametrize('training', [True, False])
def test_equals_mmcvs_without_dropout(training):
    lean, mmcvs = lean_and_mmcvs(ffn_drop=0.0 if training else 0.5)
    assert type(lean) is LeanFFN
    results = []
    for ffn in (lean.train(training), mmcvs.train(training)):
        inputs = torch.randn(2, 50, 32, generator=torch.Generator().manual_seed(1))
        inputs.requires_grad_()
        output = ffn(inputs)
        gradients = torch.autograd.grad(output.sin().sum(), [inputs, *ffn.parameters()])
        with torch.no_grad():
            results.append([output, *gradients, ffn(inputs), ffn(inputs, inputs + 1)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_dropout_has_the_same_mean():
    lean, mmcvs = lean_and_mmcvs(ffn_drop=0.3)
    inputs = torch.randn(1, 32).expand(20000, 32).contiguous()
    with torch.no_grad():
        ours, theirs = lean(inputs), mmcvs(inputs)
    error = theirs.std(dim=0) / 20000**0.5
    assert ((ours.mean(dim=0) - theirs.mean(dim=0)).abs() < 7 * error).all()
    torch.testing.assert_close(ours.std(dim=0), theirs.std(dim=0), rtol=0.1, atol=0.01)


@pytest.mark.parametrize(
    'settings',
    [
        dict(act_cfg=dict(type='GELU')),
        dict(num_fcs=3),
        dict(add_identity=False),
        dict(layer_scale_init_value=0.1),
    ],
    ids=str,
)
def test_unusual_networks_stay_mmcvs(settings):
    lean, mmcvs = lean_and_mmcvs(**settings)
    assert type(lean) is FFN
    inputs = torch.randn(5, 32)
    torch.testing.assert_close(lean.eval()(inputs), mmcvs.eval()(inputs), rtol=1e-4, atol=1e-5)


def test_parameters_keep_their_names_and_layers_their_class():
    lean, mmcvs = lean_and_mmcvs()
    assert list(lean.state_dict()) == list(mmcvs.state_dict())
    attention = nn.MultiheadAttention(8, 2)
    use_lean_layers(attention)
    assert type(attention.out_proj) is not nn.Linear

"""Merged parameter groups: the same training as with a group for every parameter."""

import copy

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from mpvit.engine.hooks.checkpoint_fit import fit_optimizer_state
from mpvit.engine.optimizer import SharedWeightsEMA
from mpvit.errors import UserError

PARAMWISE = dict(
    custom_keys={'backbone': dict(lr_mult=0.1), 'offsets': dict(lr_mult=0.1, decay_mult=0.0)},
    norm_decay_mult=0.5,
)


class Model(nn.Module):
    """A few parameters under every rule."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 8))
        self.offsets = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 2)
        self.frozen = nn.Linear(8, 2).requires_grad_(False)
        self.unused = nn.Linear(8, 2)  # never has a gradient, so no state either

    def forward(self, x):
        return self.head(self.norm(self.offsets(self.backbone(x))))


def wrapper_of(model, constructor='MergedOptimWrapperConstructor', **optimizer):
    optimizer = dict(type='AdamW', lr=0.01, weight_decay=0.1) | optimizer
    return build_optim_wrapper(
        model,
        dict(
            constructor=constructor,
            optimizer=optimizer,
            paramwise_cfg=copy.deepcopy(PARAMWISE),
            clip_grad=dict(max_norm=0.5),
        ),
    )


def train(model, wrapper, steps):
    generator = torch.Generator().manual_seed(steps[0])
    for _ in range(*steps):
        loss = model(torch.randn(3, 4, generator=generator)).square().mean()
        wrapper.update_params(loss)


def settings(model, wrapper):
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: (group['lr'], group['weight_decay'])
        for group in wrapper.optimizer.param_groups
        for p in group['params']
    }


def difference(one, other):
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def test_groups_are_merged_and_every_rule_holds():
    model = Model()
    merged, single = wrapper_of(model), wrapper_of(model, 'DefaultOptimWrapperConstructor')
    assert settings(model, merged) == settings(model, single)
    groups = merged.optimizer.param_groups
    # backbone, offsets, norms outside of them, all others
    assert [len(group['params']) for group in groups] == [6, 2, 2, 4]
    assert len(single.optimizer.param_groups) == 14
    assert merged.base_param_settings['lr'] == 0.01  # what the log shows as base lr


@pytest.mark.parametrize('kernel', [{}, dict(foreach=True), dict(fused=False)], ids=str)
def test_weights_go_the_same_way(kernel):
    models = Model(), Model()
    merged = wrapper_of(models[0], **kernel)
    train(models[0], merged, (0, 40))
    single = wrapper_of(models[1], 'DefaultOptimWrapperConstructor', fused=False, foreach=False)
    train(models[1], single, (0, 40))
    assert difference(Model(), models[0]) > 0.01
    assert difference(*models) < 2e-6


def test_fused_where_there_is_a_kernel_and_the_config_leaves_it_open():
    model = Model()
    assert wrapper_of(model).optimizer.defaults['fused'] is True
    assert not wrapper_of(model, foreach=True).optimizer.defaults['fused']
    assert 'fused' not in wrapper_of(model, type='RMSprop').optimizer.defaults
    model.register_parameter('phase', nn.Parameter(torch.zeros(2).to(torch.complex64)))
    assert not wrapper_of(model).optimizer.defaults['fused']  # no kernel for complex numbers


def test_resuming_on_another_kernel():
    model = Model()
    wrapper = wrapper_of(model)
    train(model, wrapper, (0, 10))
    resumed = copy.deepcopy(model)
    checkpoint = copy.deepcopy(dict(optimizer=wrapper.state_dict()))
    train(model, wrapper, (10, 20))
    other = wrapper_of(resumed, fused=False)
    fit_optimizer_state(checkpoint, other.optimizer)
    other.load_state_dict(checkpoint['optimizer'])
    assert not any(group['fused'] for group in other.optimizer.param_groups)
    train(resumed, other, (10, 20))
    assert difference(model, resumed) < 2e-6
    single = wrapper_of(model, 'DefaultOptimWrapperConstructor')
    with pytest.raises(UserError, match='4 parameter groups.* 14 others.*constructor'):
        fit_optimizer_state(checkpoint, single.optimizer)


class Shared(nn.Module):
    """Two places for one layer, and a norm with statistics."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.Linear(4, 4)
        self.layers = nn.ModuleList([layer, layer])
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(self.layers[1](self.layers[0](x)))


def test_every_weight_and_statistic_is_averaged_once_a_step():
    torch.manual_seed(0)
    model = Shared()
    average = SharedWeightsEMA(model, momentum=0.1)
    expected = None
    for _ in range(5):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(8, 4))
        average.update_parameters(model)
        now = {name: t.clone().double() for name, t in model.state_dict().items()}
        if expected is None:  # the first step copies
            expected = now
        expected = {name: 0.9 * old + 0.1 * now[name] for name, old in expected.items()}
    for name, tensor in average.module.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert average.module.layers[0].weight is average.module.layers[1].weight

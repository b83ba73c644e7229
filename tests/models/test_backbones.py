"""MPViT and CoaT against the numbers of the official models, and their options."""

import copy
import json
import re

import numpy as np
import parity_fill
import pytest
import torch
from mmdet.registry import MODELS
from parity_backbone import BACKBONES, BackboneParity
from timm.layers import DropPath
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mpvit.models.coat import CoaT
from mpvit.models.layers import to_map, to_tokens
from mpvit.models.mpvit import MPViT, PatchEmbed

PARAMETERS = {  # millions would hide a missing bias
    'mpvit_tiny': 5_626_736,
    'mpvit_xsmall': 10_316_448,
    'mpvit_small': 22_603_400,
    'mpvit_base': 74_364_976,
    'coat_lite_small': 19_324_480,
    'coat_small': 21_370_984,
}
COATS = [name for name in BACKBONES if name.startswith('coat')]
MPVIT_ARCH = dict(embed_dims=(16, 24, 32), num_layers=(1, 2, 1), mlp_ratio=2, num_paths=(2, 2, 3))
LITE_ARCH = dict(embed_dims=(8, 16, 24), num_layers=(1, 2, 1), mlp_ratios=(2, 2, 2))
PARALLEL_ARCH = dict(
    embed_dims=(8, 16, 16, 16),
    num_layers=(1, 1, 1, 1),
    mlp_ratios=(2, 2, 2, 2),
    parallel_layers=2,
)
SMALL_MODELS = {
    'mpvit': dict(type='MPViT', arch=MPVIT_ARCH, out_indices=(0, 2)),
    'lite': dict(type='CoaT', arch=LITE_ARCH, out_indices=(1, 2)),
    'parallel': dict(type='CoaT', arch=PARALLEL_ARCH, out_indices=(1, 2, 3)),
}


@pytest.fixture(params=SMALL_MODELS)
def small(request):
    """Builds a small model with further options."""
    return lambda **options: MODELS.build(SMALL_MODELS[request.param] | options)


@pytest.mark.parametrize('name', BACKBONES)
def test_outputs_equal_the_official_ones(name):
    parity = BackboneParity(name)
    errors = parity.errors()
    assert max(errors) < 5e-5
    if name in COATS:
        assert max(parity.errors(double=True)) < 1e-12
    print(f'{name}: largest relative error {max(errors):.1e} (tolerance 5e-5)')


@pytest.mark.parametrize('arch', ['tiny', 'small'])
def test_training_step_equals_the_official_one(arch):
    parity = BackboneParity(f'mpvit_{arch}')
    model, fixture, names = parity.model.train(), parity.fixture, parity.names
    outputs = model(parity.image('train'))
    loss = torch.zeros(())
    for index, output in enumerate(outputs):
        assert fixture.slice_error(f'train.stage{index + 2}', output.detach()) < 1e-4
        weights = parity_fill.image((3, *output.shape[2:]), 10 + index).mean(0)
        loss = loss + (output * torch.from_numpy(weights)).mean()
    loss.backward()
    np.testing.assert_allclose(loss.item(), fixture['train.loss'], rtol=1e-4)

    parameters = dict(model.named_parameters())
    expected = fixture.grad_norms('train.grad')
    largest = max(expected.values())
    for name, norm in expected.items():
        gradient = parameters[names[name]].grad
        assert abs(gradient.norm().item() - norm) < 1e-4 * max(norm, 1e-3 * largest), name
        if f'train.grad.slice.{name}' in fixture.z:
            assert fixture.grad_slice_error(name, gradient, 'train.grad') < 3e-4, name
    state = model.state_dict()
    for name, mean in zip(fixture['train.bn_names'], fixture['train.bn_mean_value'], strict=True):
        np.testing.assert_allclose(
            state[names[str(name)]].mean(), mean, rtol=1e-4, atol=1e-6, err_msg=name
        )


@pytest.mark.parametrize('name', COATS)
def test_inner_activations_equal_the_official_ones(name):
    parity = BackboneParity(name)
    model, fixture = parity.model.eval(), parity.fixture
    seen = {}

    def record(name: str):
        def hook(module, arguments, output):
            if name.startswith('parallel_blocks') and isinstance(output, list):
                seen.update({f'{name}[{i + 1}]': x for i, x in enumerate(output)})
            else:
                seen[name] = output

        return hook

    names = {
        key.removeprefix('debug.').removesuffix('.shape')
        for key in fixture.z
        if key.startswith('debug.') and key.endswith('.shape')
    }
    for name in {name.split('[')[0] for name in names}:
        ours = re.sub(r'patch_embed(\d)', lambda m: f'stages.{int(m[1]) - 1}.patch_embed', name)
        ours = re.sub(r'serial_blocks(\d)', lambda m: f'stages.{int(m[1]) - 1}.layers', ours)
        ours = ours.replace('parallel_blocks', 'parallel_layers')
        model.get_submodule(ours).register_forward_hook(record(name))
    with torch.no_grad():
        model(parity.image('A'))
    names -= {name for name in names if name.endswith('[0]')}  # stage 1 passes by
    assert names == set(seen)
    for name in names:
        assert fixture.slice_error(f'debug.{name}', seen[name]) < 5e-5, name


def test_random_stream_of_the_fixtures_is_unchanged(root):
    path = root / 'tests' / 'data' / 'parity' / 'fill_checksums.json'
    for name, shape, seed, expected in json.loads(path.read_text())['fill'][:20]:
        actual = parity_fill.checksum(parity_fill.fill(name, shape, seed))
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize('name', BACKBONES)
def test_parameters_are_the_published_ones_and_registered_once(name):
    model = MODELS.build(dict(BACKBONES[name], out_indices=(1, 2, 3)))
    parameters = dict(model.named_parameters(remove_duplicate=False))
    assert sum(p.numel() for p in parameters.values()) == PARAMETERS[name]
    # or mmengine's optimizer constructor meets them twice
    assert len(parameters) == len(list(model.parameters()))
    # no classifier, no copies of shared modules
    assert list(parameters) == [
        n for n in model.state_dict() if n not in dict(model.named_buffers())
    ]


def test_any_input_size(small):
    model = small()
    rounded = np.ceil if isinstance(model, MPViT) else np.floor
    for size in ((61, 83), (32, 47)):
        outputs = model(torch.randn(2, 3, *size))
        for index, output in zip(model.out_indices, outputs, strict=True):
            expected = tuple(int(rounded(n / (4 * 2**index))) for n in size)
            assert output.shape == (2, model.out_channels[index], *expected)
            assert output.is_contiguous(memory_format=torch.channels_last)


def test_tokens_of_a_map_are_a_view():
    maps = torch.randn(2, 8, 5, 7).contiguous(memory_format=torch.channels_last)
    tokens = to_tokens(maps)
    assert tokens.data_ptr() == maps.data_ptr()
    assert tokens.is_contiguous()
    assert torch.equal(to_map(tokens, (5, 7)), maps)


def test_every_parameter_gets_a_gradient(small):
    """Or distributed training would wait for those without."""
    model = small()
    model.init_weights()
    sum(output.square().mean() for output in model(torch.randn(2, 3, 64, 64))).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_copies_of_the_model_share_nothing_with_it(small):
    torch.manual_seed(0)
    model = small().eval()
    twin, reference = copy.deepcopy(model), small().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    image = torch.randn(1, 3, 64, 64)
    reference.load_state_dict(twin.state_dict())
    for ours, expected in zip(twin(image), reference(image), strict=True):
        assert torch.equal(ours, expected)
        assert ours.abs().max() > 0


def test_images_are_independent_of_their_batch(small):
    torch.manual_seed(0)
    model = small().eval()
    images = torch.randn(2, 3, 50, 70)
    for both, first, second in zip(
        model(images), model(images[:1]), model(images[1:]), strict=True
    ):
        torch.testing.assert_close(both, torch.cat([first, second]))


def test_stages_that_no_output_needs_are_not_built():
    assert len(CoaT('lite_small', out_indices=(1, 2)).stages) == 3
    assert len(MPViT('tiny', out_indices=(1, 2)).stages) == 3
    assert len(MPViT('tiny', out_indices=(1, 2), num_stages=4).stages) == 4


@pytest.mark.parametrize('frozen', [-1, 0, 2])
def test_frozen_stages(small, frozen):
    model = small(frozen_stages=frozen, drop_path_rate=0.5).train()
    stem = model.get_submodule(model._stem)
    assert all(p.requires_grad is (frozen < 0) for p in stem.parameters())
    for index, stage in enumerate(model.stages, start=1):
        is_frozen = index <= frozen
        if not is_frozen and index == 1 and isinstance(model, CoaT):
            stage = stage.layers  # its patch embedding is the stem
        assert all(p.requires_grad is not is_frozen for p in stage.parameters())
        norms = [m for m in stage.modules() if isinstance(m, _BatchNorm | nn.LayerNorm)]
        assert norms
        assert all(norm.training is not is_frozen for norm in norms)
    rest = getattr(model, 'parallel_layers', nn.ModuleList())
    assert all(p.requires_grad for p in rest.parameters())


def test_norm_eval_and_norm_cfg():
    model = MPViT(MPVIT_ARCH, out_indices=(2,), norm_eval=True, norm_cfg=dict(type='BN')).train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    assert model.stages[0].paths[0].training
    default = MPViT(MPVIT_ARCH, out_indices=(2,))
    assert isinstance(default.stem[0].norm, nn.SyncBatchNorm)


def test_activation_checkpointing_changes_nothing_but_memory(small):
    torch.manual_seed(0)
    plain, saving = small(drop_path_rate=0.5), small(drop_path_rate=0.5, with_cp=True)
    plain.init_weights()
    saving.load_state_dict(plain.state_dict())
    image = torch.randn(2, 3, 64, 64)
    for model in (plain, saving):
        torch.manual_seed(1)  # the same paths are dropped
        sum(output.square().mean() for output in model(image)).backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_drop_path_of_mpvit_grows_with_depth_and_that_of_coat_does_not():
    model = MPViT(MPVIT_ARCH, out_indices=(2,), drop_path_rate=0.3)
    rates = [
        getattr(layer.drop_path, 'drop_prob', 0.0)
        for stage in model.stages
        for layer in stage.paths[0].layers
    ]
    np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.3], atol=1e-6)
    model = CoaT('small', drop_path_rate=0.2)
    drops = [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]
    assert drops == [0.2] * (2 + 2 + 2 + 2 + 6)
    assert not any(isinstance(module, DropPath) for module in CoaT('small').modules())


def test_drop_path_leaves_evaluation_alone(small):
    torch.manual_seed(0)
    plain, dropping = small().eval(), small(drop_path_rate=0.5).eval()
    dropping.load_state_dict(plain.state_dict())
    image = torch.randn(4, 3, 64, 64)
    for a, b in zip(plain(image), dropping(image), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(dropping.train()(image)[-1], b)


def test_initialisation_of_mpvit_is_the_published_one():
    torch.manual_seed(0)
    model = MPViT('small', out_indices=(3,))
    model.init_weights()
    linear = model.stages[3].paths[0].layers[0].mlp.fc1
    assert linear.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert linear.bias.abs().max() == 0
    embed = model.stages[3].patch_embeds[0]
    assert isinstance(embed, PatchEmbed)
    assert embed.dwconv.weight.std().item() == pytest.approx((2 / 9 / 288) ** 0.5, rel=0.05)
    assert embed.pwconv.conv.weight.std().item() == pytest.approx((2 / 288) ** 0.5, rel=0.02)
    local = model.stages[3].local
    assert local.dwconv.conv.weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.05)
    assert local.conv2.bn.weight.min() == 1


def test_initialisation_of_coat_is_the_published_one():
    torch.manual_seed(0)
    model = CoaT('small')
    convolution = model.stages[1].patch_embed.proj.weight.clone()
    model.init_weights()
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert len(linears) == 4 * (2 * 4) + 6 * (3 * 2 + 2)
    for linear in linears:
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert linear.bias.abs().max() == 0
    for stage in model.stages:
        assert stage.cls_token.std().item() == pytest.approx(0.02, rel=0.2)
    assert torch.equal(model.stages[1].patch_embed.proj.weight, convolution)  # PyTorch's own
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    assert all(norm.weight.min() == 1 == norm.weight.max() for norm in norms)
    assert {norm.eps for norm in norms} == {1e-5, 1e-6}


def test_pretrained_weights_are_loaded(small, tmp_path):
    donor = small()
    torch.save(donor.state_dict(), tmp_path / 'donor.pth')
    model = small(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'donor.pth')))
    model.init_weights()
    for name, value in donor.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize(('kind', 'arch'), [(MPViT, MPVIT_ARCH), (CoaT, LITE_ARCH)])
@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(width=3), 'has the entries'),
        (dict(embed_dims=(8, 20, 24)), 'divisible by num_heads 8'),
        (dict(num_layers=(1, 2)), 'one entry per stage'),
        (dict(window_heads={3: 4}), 'add up to num_heads 8'),
    ],
)
def test_wrong_arches_say_what_is_wrong(kind, arch, change, message):
    with pytest.raises(ValueError, match=message):
        kind(arch | change)


@pytest.mark.parametrize('kind', [MPViT, CoaT])
@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(arch='huge'), "unknown .* arch 'huge'; choose from"),
        (dict(arch=dict(embed_dims=(8,))), 'has the entries'),
        (dict(out_indices=(4,)), r'must lie in \[0, 4\)'),
        (dict(out_indices=()), 'out_indices'),
        (dict(num_stages=5), 'the arch has only 4'),
        (dict(frozen_stages=5), r'frozen_stages must lie in \[-1, 4\]'),
        (dict(drop_path_rate=1.0), 'drop_path_rate'),
    ],
)
def test_wrong_arguments_say_what_is_wrong(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(**arguments)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(arch=dict(LITE_ARCH, parallel_layers=1)), 'need four stages'),
        (dict(arch=dict(PARALLEL_ARCH, embed_dims=(8, 16, 16, 24))), 'one width'),
        (dict(arch=dict(PARALLEL_ARCH, mlp_ratios=(2, 2, 4, 2))), 'one MLP ratio'),
        (dict(arch='small', out_indices=(2, 3)), 'must contain 1, 2 and 3'),
    ],
)
def test_parallel_layers_say_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        CoaT(**arguments)


def test_too_small_images_say_what_is_wrong():
    with pytest.raises(ValueError, match='32 px a side at least'):
        CoaT('lite_small')(torch.zeros(1, 3, 64, 31))

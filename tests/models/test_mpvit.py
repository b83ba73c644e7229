"""MPViT against the numbers of the official model, and its options."""

import json

import numpy as np
import parity_check
import parity_fill
import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

import mpvit
from mpvit.checkpoints.names_mpvit import mpvit_from_official, rename
from mpvit.models.mpvit import ARCHS, MPViT, PatchEmbed

PUBLISHED_PARAMETERS = {  # millions would hide a missing bias
    'tiny': 5_626_736,
    'xsmall': 10_316_448,
    'small': 22_603_400,
    'base': 74_364_976,
}
SMALL_ARCH = dict(embed_dims=(16, 24, 32), num_layers=(1, 2, 1), mlp_ratio=2, num_paths=(2, 2, 3))


@pytest.fixture(scope='module')
def parity(root):
    return root / 'tests' / 'data' / 'parity'


def official_model(parity, arch: str) -> tuple[MPViT, dict[str, str]]:
    """Our backbone with the deterministic weights of the fixtures, and official -> our names."""
    keys = json.loads((parity / 'keys' / f'backbone_mpvit_{arch}.json').read_text())
    official = parity_fill.fill_state_dict(keys['keys'], keys['aliases'], seed=0)
    model = MPViT(arch, out_indices=(0, 1, 2, 3))
    ours = {name: torch.from_numpy(v) for name, v in rename(official, mpvit_from_official).items()}
    model.load_state_dict(ours, strict=True)
    return model, {name: mpvit_from_official(name) for name in official}


def test_random_stream_of_the_fixtures_is_unchanged(parity):
    checksums = json.loads((parity / 'fill_checksums.json').read_text())
    for name, shape, seed, expected in checksums['fill'][:20]:
        actual = parity_fill.checksum(parity_fill.fill(name, shape, seed))
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize('arch', ARCHS)
def test_outputs_equal_the_official_ones(parity, arch):
    model, _ = official_model(parity, arch)
    model.eval()
    fixture = parity_check.Fixture(parity / f'backbone_mpvit_{arch}.npz')
    worst = 0.0
    for tag in 'AB':  # the second input has odd sizes
        image = parity_fill.image(
            tuple(fixture[f'{tag}.input_shape']), int(fixture[f'{tag}.input_seed'])
        )
        with torch.no_grad():
            outputs = model(torch.from_numpy(image))
        for index, output in enumerate(outputs):
            key = f'{tag}.stage{index + 2}'
            error = fixture.slice_error(key, output)
            worst = max(worst, error)
            assert error < 5e-5, key
            assert fixture.stats_error(key, output) < 2e-5, key
    print(f'MPViT-{arch}: largest relative error {worst:.1e} (tolerance 5e-5)')


@pytest.mark.parametrize('arch', ['tiny', 'small'])
def test_training_step_equals_the_official_one(parity, arch):
    model, names = official_model(parity, arch)
    model.train()
    fixture = parity_check.Fixture(parity / f'backbone_mpvit_{arch}.npz')
    shape, seed = tuple(fixture['train.input_shape']), int(fixture['train.input_seed'])
    outputs = model(torch.from_numpy(parity_fill.image(shape, seed)))
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


@pytest.mark.parametrize('arch', ARCHS)
def test_parameter_count_is_the_published_one(arch):
    model = MPViT(arch, out_indices=(0, 1, 2, 3))
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED_PARAMETERS[arch]
    # parameters registered once only, or mmengine's optimizer constructor meets them twice
    assert len(list(model.parameters())) == len(
        list(model.named_parameters(remove_duplicate=False))
    )


def test_every_official_name_is_known(parity):
    keys = json.loads((parity / 'keys' / 'backbone_mpvit_small.json').read_text())
    renamed = rename(dict.fromkeys(keys['keys']), mpvit_from_official)
    assert set(renamed) == set(MPViT('small', out_indices=(3,)).state_dict())
    assert mpvit_from_official('cls_head.cls.weight') is None
    with pytest.raises(KeyError, match='layer1'):
        mpvit_from_official('layer1.0.conv1.weight')


def test_built_from_the_registry_with_custom_arch_and_any_input_size():
    model = MODELS.build(dict(type='MPViT', arch=SMALL_ARCH, out_indices=(0, 2)))
    outputs = model(torch.randn(2, 3, 61, 83))
    assert [tuple(o.shape) for o in outputs] == [(2, 24, 16, 21), (2, 32, 4, 6)]
    assert model.out_channels == (24, 32, 32)
    assert all(o.is_contiguous(memory_format=torch.channels_last) for o in outputs)


def test_tokens_of_a_map_are_a_view():
    from mpvit.models.layers import to_map, to_tokens

    maps = torch.randn(2, 8, 5, 7).contiguous(memory_format=torch.channels_last)
    tokens = to_tokens(maps)
    assert tokens.data_ptr() == maps.data_ptr()
    assert tokens.is_contiguous()
    assert torch.equal(to_map(tokens, (5, 7)), maps)


def test_stages_that_no_output_needs_are_not_built():
    assert len(MPViT('tiny', out_indices=(1, 2)).stages) == 3
    assert len(MPViT('tiny', out_indices=(1, 2), num_stages=4).stages) == 4


@pytest.mark.parametrize('frozen', [-1, 0, 2])
def test_frozen_stages(frozen):
    model = MPViT(SMALL_ARCH, out_indices=(2,), frozen_stages=frozen).train()
    parts = [model.stem, *model.stages]
    for index, part in enumerate(parts):
        is_frozen = index <= frozen
        assert all(p.requires_grad is not is_frozen for p in part.parameters())
        norms = [m for m in part.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        assert norms
        assert all(norm.training is not is_frozen for norm in norms)


def test_norm_eval_and_norm_cfg():
    model = MPViT(SMALL_ARCH, out_indices=(2,), norm_eval=True, norm_cfg=dict(type='BN')).train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    assert model.stages[0].paths[0].training
    default = MPViT(SMALL_ARCH, out_indices=(2,))
    assert isinstance(default.stem[0].norm, nn.SyncBatchNorm)


def test_activation_checkpointing_changes_nothing_but_memory():
    torch.manual_seed(0)
    plain = MPViT(SMALL_ARCH, out_indices=(2,))
    saving = MPViT(SMALL_ARCH, out_indices=(2,), with_cp=True)
    saving.load_state_dict(plain.state_dict())
    image = torch.randn(2, 3, 64, 64)
    for model in (plain, saving):
        model(image)[0].square().mean().backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_drop_path_rates_grow_with_depth():
    model = MPViT(SMALL_ARCH, out_indices=(2,), drop_path_rate=0.3)
    rates = [
        [getattr(layer.drop_path, 'drop_prob', 0.0) for layer in path.layers]
        for stage in model.stages
        for path in stage.paths[:1]
    ]
    np.testing.assert_allclose(sum(rates, []), [0, 0.1, 0.2, 0.3], atol=1e-6)


def test_initialisation_from_scratch_is_the_published_one():
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


def test_pretrained_weights_are_loaded(tmp_path):
    donor = MPViT(SMALL_ARCH, out_indices=(2,))
    torch.save(donor.state_dict(), tmp_path / 'donor.pth')
    model = MPViT(
        SMALL_ARCH,
        out_indices=(2,),
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'donor.pth')),
    )
    model.init_weights()
    for name, value in donor.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(arch='huge'), "unknown MPViT arch 'huge'; choose from"),
        (dict(arch=dict(embed_dims=(8,))), 'has the entries'),
        (dict(arch=dict(SMALL_ARCH, width=3)), 'has the entries'),
        (dict(arch=dict(SMALL_ARCH, embed_dims=(16, 20, 32))), 'divisible by num_heads 8'),
        (dict(arch=dict(SMALL_ARCH, num_layers=(1, 2))), 'one entry per stage'),
        (dict(arch=dict(SMALL_ARCH, window_heads={3: 4})), 'add up to num_heads 8'),
        (dict(arch=SMALL_ARCH, out_indices=(3,)), r'must lie in \[0, 3\)'),
        (dict(arch=SMALL_ARCH, num_stages=4), 'only 3'),
        (dict(out_indices=()), 'out_indices'),
        (dict(frozen_stages=5), r'frozen_stages must lie in \[-1, 4\]'),
        (dict(drop_path_rate=1.0), 'drop_path_rate'),
    ],
)
def test_wrong_arguments_say_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        MPViT(**arguments)


def test_version_is_the_installed_one():
    from importlib.metadata import version

    assert mpvit.__version__ == version('mpvit')

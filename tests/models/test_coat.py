"""CoaT against the numbers of the official model, and its options."""

import copy
import json
import re

import parity_check
import parity_fill
import pytest
import torch
from mmdet.registry import MODELS
from timm.layers import DropPath
from torch import Tensor, nn

from mpvit.checkpoints.names_coat import coat_from_official
from mpvit.checkpoints.names_mpvit import rename
from mpvit.models.coat import ARCHS, CoaT

PUBLISHED_PARAMETERS = {'lite_small': (19_324_480, 244), 'small': (21_370_984, 316)}
LITE_ARCH = dict(embed_dims=(8, 16, 24), num_layers=(1, 2, 1), mlp_ratios=(2, 2, 2))
PARALLEL_ARCH = dict(
    embed_dims=(8, 16, 16, 16),
    num_layers=(1, 1, 1, 1),
    mlp_ratios=(2, 2, 2, 2),
    parallel_layers=2,
)
SMALL_MODELS = {
    'lite': dict(arch=LITE_ARCH, out_indices=(1, 2)),
    'parallel': dict(arch=PARALLEL_ARCH, out_indices=(0, 1, 2, 3)),
}


@pytest.fixture(scope='module')
def parity(root):
    return root / 'tests' / 'data' / 'parity'


@pytest.fixture(params=SMALL_MODELS)
def arguments(request):
    return SMALL_MODELS[request.param]


def official_model(parity, arch: str) -> CoaT:
    """Our backbone with the deterministic weights of the fixtures."""
    keys = json.loads((parity / 'keys' / f'backbone_coat_{arch}.json').read_text())
    official = parity_fill.fill_state_dict(keys['keys'], keys['aliases'], seed=0)
    model = CoaT(arch, out_indices=(0, 1, 2, 3))
    ours = {name: torch.from_numpy(v) for name, v in rename(official, coat_from_official).items()}
    model.load_state_dict(ours, strict=True)
    return model.eval()


def image_of(fixture: parity_check.Fixture, tag: str) -> Tensor:
    shape, seed = tuple(fixture[f'{tag}.input_shape']), int(fixture[f'{tag}.input_seed'])
    return torch.from_numpy(parity_fill.image(shape, seed))


@pytest.mark.parametrize('arch', ARCHS)
def test_outputs_equal_the_official_ones(parity, arch):
    model = official_model(parity, arch)
    fixture = parity_check.Fixture(parity / f'backbone_coat_{arch}.npz')
    for f64, tolerance in ((False, 5e-5), (True, 1e-12)):
        model.to(torch.float64 if f64 else torch.float32)
        worst = 0.0
        for tag in 'AB':  # the second input has odd sizes
            image = image_of(fixture, tag).to(torch.float64 if f64 else torch.float32)
            with torch.no_grad():
                outputs = model(image)
            for index, output in enumerate(outputs):
                key = f'{tag}.x{index + 1}_nocls'
                error = fixture.slice_error(key, output, f64=f64)
                worst = max(worst, error)
                assert error < tolerance, key
                assert fixture.stats_error(key, output) < 2e-5, key
        bits = 64 if f64 else 32
        print(f'CoaT {arch}, float{bits}: largest relative error {worst:.1e} ({tolerance:.0e})')


@pytest.mark.parametrize('arch', ARCHS)
def test_inner_activations_equal_the_official_ones(parity, arch):
    model = official_model(parity, arch)
    fixture = parity_check.Fixture(parity / f'backbone_coat_{arch}.npz')
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
        model(image_of(fixture, 'A'))
    names -= {name for name in names if name.endswith('[0]')}  # stage 1 passes by
    assert names == set(seen)
    for name in names:
        assert fixture.slice_error(f'debug.{name}', seen[name]) < 5e-5, name


@pytest.mark.parametrize('arch', ARCHS)
def test_parameters_are_the_published_ones_and_registered_once(arch):
    model = CoaT(arch)
    parameters = list(model.named_parameters(remove_duplicate=False))
    assert (sum(p.numel() for _, p in parameters), len(parameters)) == PUBLISHED_PARAMETERS[arch]
    # no classifier, no norm of the outputs, no copies of shared modules
    assert [name for name, _ in parameters] == list(model.state_dict())


def test_built_from_the_registry_with_custom_arch_and_any_input_size(arguments):
    model = MODELS.build(dict(type='CoaT', **arguments))
    for height, width in ((61, 83), (32, 47)):
        outputs = model(torch.randn(2, 3, height, width))
        expected = [
            (2, model.out_channels[i], height // (4 * 2**i), width // (4 * 2**i))
            for i in arguments['out_indices']
        ]
        assert [tuple(o.shape) for o in outputs] == expected
        assert all(o.is_contiguous(memory_format=torch.channels_last) for o in outputs)


def test_every_parameter_gets_a_gradient(arguments):
    """Or distributed training would wait for those without."""
    if 'parallel_layers' in arguments['arch']:
        arguments = dict(arguments, out_indices=(1, 2, 3))
    model = CoaT(**arguments)
    model.init_weights()
    sum(output.square().mean() for output in model(torch.randn(2, 3, 64, 64))).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_copies_of_the_model_share_nothing_with_it(arguments):
    torch.manual_seed(0)
    model = CoaT(**arguments).eval()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    image = torch.randn(1, 3, 64, 64)
    reference = CoaT(**arguments).eval()
    reference.load_state_dict(twin.state_dict())
    for ours, expected in zip(twin(image), reference(image), strict=True):
        assert torch.equal(ours, expected)
        assert ours.abs().max() > 0


def test_images_are_independent_of_their_batch(arguments):
    torch.manual_seed(0)
    model = CoaT(**arguments).eval()
    images = torch.randn(2, 3, 50, 70)
    for both, first, second in zip(
        model(images), model(images[:1]), model(images[1:]), strict=True
    ):
        torch.testing.assert_close(both, torch.cat([first, second]))


def test_stages_that_no_output_needs_are_not_built():
    assert len(CoaT('lite_small', out_indices=(1, 2)).stages) == 3


@pytest.mark.parametrize('frozen', [-1, 0, 2])
def test_frozen_stages(arguments, frozen):
    model = CoaT(**arguments, frozen_stages=frozen, drop_path_rate=0.5).train()
    for index, stage in enumerate(model.stages, start=1):
        assert all(p.requires_grad is not (index <= frozen) for p in stage.layers.parameters())
        assert stage.cls_token.requires_grad is not (index <= frozen)
        assert stage.layers.training is not (index <= frozen)
    first = model.stages[0].patch_embed
    assert all(p.requires_grad is (frozen < 0) for p in first.parameters())
    assert all(p.requires_grad for p in model.parallel_layers.parameters())


def test_activation_checkpointing_changes_nothing_but_memory(arguments):
    torch.manual_seed(0)
    plain = CoaT(**arguments, drop_path_rate=0.5)
    saving = CoaT(**arguments, drop_path_rate=0.5, with_cp=True)
    plain.init_weights()
    saving.load_state_dict(plain.state_dict())
    image = torch.randn(2, 3, 64, 64)
    for model in (plain, saving):
        torch.manual_seed(1)  # the same paths are dropped
        sum(output.square().mean() for output in model(image)).backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_drop_path_has_one_rate_everywhere():
    model = CoaT('small', drop_path_rate=0.2)
    drops = [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]
    assert drops == [0.2] * (2 + 2 + 2 + 2 + 6)
    assert not any(isinstance(module, DropPath) for module in CoaT('small').modules())


def test_drop_path_leaves_evaluation_alone(arguments):
    torch.manual_seed(0)
    plain, dropping = CoaT(**arguments), CoaT(**arguments, drop_path_rate=0.5)
    dropping.load_state_dict(plain.state_dict())
    image = torch.randn(4, 3, 64, 64)
    for a, b in zip(plain.eval()(image), dropping.eval()(image), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(dropping.train()(image)[-1], b)


def test_initialisation_from_scratch_is_the_published_one():
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


def test_pretrained_weights_are_loaded(tmp_path):
    donor = CoaT(LITE_ARCH, out_indices=(2,))
    torch.save(donor.state_dict(), tmp_path / 'donor.pth')
    model = CoaT(
        LITE_ARCH,
        out_indices=(2,),
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'donor.pth')),
    )
    model.init_weights()
    for name, value in donor.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(arch='tiny'), "unknown CoaT arch 'tiny'; choose from"),
        (dict(arch=dict(embed_dims=(8,))), 'has the entries'),
        (dict(arch=dict(LITE_ARCH, width=3)), 'has the entries'),
        (dict(arch=dict(LITE_ARCH, embed_dims=(8, 20, 24))), 'divisible by num_heads 8'),
        (dict(arch=dict(LITE_ARCH, num_layers=(1, 2))), 'one entry per stage'),
        (dict(arch=dict(LITE_ARCH, window_heads={3: 4})), 'add up to num_heads 8'),
        (dict(arch=dict(LITE_ARCH, parallel_layers=1)), 'need four stages'),
        (dict(arch=dict(PARALLEL_ARCH, embed_dims=(8, 16, 16, 24))), 'one width'),
        (dict(arch=dict(PARALLEL_ARCH, mlp_ratios=(2, 2, 4, 2))), 'one MLP ratio'),
        (dict(arch=LITE_ARCH, out_indices=(3,)), r'must lie in \[0, 3\)'),
        (dict(arch='small', out_indices=(2, 3)), 'must contain 1, 2 and 3'),
        (dict(out_indices=()), 'out_indices'),
        (dict(frozen_stages=5), r'frozen_stages must lie in \[-1, 4\]'),
        (dict(drop_path_rate=1.0), 'drop_path_rate'),
    ],
)
def test_wrong_arguments_say_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        CoaT(**arguments)


def test_too_small_images_say_what_is_wrong():
    with pytest.raises(ValueError, match='32 px a side at least'):
        CoaT('lite_small')(torch.zeros(1, 3, 64, 31))

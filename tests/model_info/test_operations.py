"""Counted operations against closed formulas, published figures and the detector as it runs."""

import functools

import hand_count
import pytest
import torch
from hand_count import MPVIT, Transformer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mpvit.engine.hooks.prepare_inference import prepare
from mpvit.model_info import count_operations, model_info
from mpvit.model_info.info import random_detector
from mpvit.model_info.measure import made_up, predict
from mpvit.model_info.operations import _FORMULAS, _operations

CONFIGS = 'configs/deformable_detr'
FULL, ODD, SMALL = (800, 1333), (333, 517), (224, 224)  # those of papers, and a crooked one
PUBLISHED = dict(  # G multiply-adds at 224x224, called FLOPs in the papers
    mpvit_t=1.6,
    mpvit_xs=2.9,
    mpvit_s=4.7,
    mpvit_b=16.4,
    coat_lite_s=4.0,
    coat_s=12.6,
    r50=4.1,
)
DOCUMENT = 'docs/model_info.md'  # its first table with a column G multiply-adds
QUICK = ('mpvit_s', 'coat_s', 'r50')  # one of each kind
VARIANTS = ('r50_ddetr_refine_50e', 'r50_ddetr_two_stage_50e')
VARIANTS += ('mpvit_s_ddetr_refine_50e', 'mpvit_s_ddetr_two_stage_50e')
NAMES = [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in PUBLISHED]
CONFIG_NAMES = [pytest.param(f'{p.values[0]}_ddetr_50e', marks=p.marks) for p in NAMES]
CONFIG_NAMES += [pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS]


@functools.cache
def numbers(config, *sizes):
    info = model_info(config, sizes, memory=False, runs=0)
    assert not any(found.unknown for found in info.sizes)
    return {found.size: found.parts for found in info.sizes}


def counted(config, *sizes):
    """Multiply-adds by size and part."""
    return {
        size: {name: figures.multiply_adds for name, figures in parts.items()}
        for size, parts in numbers(config, *sizes).items()
    }


def published(root, name):
    """Path of a config and sizes, the same for all tests so that they are counted once."""
    return root / CONFIGS / f'{name}_ddetr_50e.py', FULL, ODD, SMALL


def by_hand(arch, size, **settings):
    """The parts of a detector with MPViT."""
    widths = MPVIT[arch][0]
    own, sizes = hand_count.mpvit(*MPVIT[arch], size)
    parts = Transformer(**settings).parts((*widths[2:], widths[-1]), sizes[1:])
    return dict(parts, backbone=own, total=own + sum(parts.values()))


@pytest.mark.parametrize('name', [n for n in NAMES if n.values[0].startswith('mpvit')])
def test_every_part_is_what_the_closed_formula_gives(root, name):
    for size, found in counted(*published(root, name)).items():
        expected = by_hand(name.partition('_')[2], size)
        assert {part: found[part] for part in expected} == expected


@pytest.mark.parametrize(
    ('variant', 'settings'),
    [('refine', dict(refine=True)), ('two_stage', dict(refine=True, two_stage=True))],
)
def test_refinement_and_two_stages(root, variant, settings):
    config = root / CONFIGS / f'mpvit_s_ddetr_{variant}_50e.py'
    expected = by_hand('s', (256, 320), **settings)
    found = counted(config, (256, 320))[256, 320]
    assert {part: found[part] for part in expected} == expected


def test_stages_of_a_small_detector(root):
    widths, layers, paths, ratio = (32, 64, 128, 160), (1, 1, 2), (2, 2, 2), 2
    own, sizes = hand_count.mpvit(widths, layers, paths, ratio, (130, 100))
    settings = dict(width=128, hidden=256, queries=30, encoder_layers=1, decoder_layers=2)
    settings |= dict(classes=6, heads=4, levels=2, refine=True, two_stage=True)
    expected = Transformer(**settings).parts((128, 160), sizes[1:])
    found = counted(root / CONFIGS / 'mpvit_t_ddetr_toy.py', (130, 100))[130, 100]
    assert {part: found[part] for part in expected} == expected
    stages = [found[f'backbone.stages.{i}'] for i in range(3)]
    assert found['backbone.stem'] + sum(stages) == own
    shorter, _ = hand_count.mpvit(widths, layers[:2], paths, ratio, (130, 100))
    assert stages[2] == own - shorter


@pytest.mark.parametrize('name', NAMES)
def test_backbones_agree_with_the_papers(root, name):
    found = counted(*published(root, name))[SMALL]['backbone']
    assert found / 1e9 == pytest.approx(PUBLISHED[name], rel=0.025)


def test_other_operations_are_counted_too():
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU(), nn.Softmax(1)),
        nn.Upsample(scale_factor=2, mode='bilinear'),
    )
    count = count_operations(model, lambda m: m(torch.empty(1, 3, 10, 12, device='meta')))
    elements = 8 * 10 * 12
    assert count.by_operator == {
        'convolution': 2 * 27 * elements,
        '_native_batch_norm_legit_no_training': 2 * elements,
        'gelu': elements,
        '_softmax': 5 * elements,
        'upsample_bilinear2d': 2 * 4 * 4 * elements,  # four corners
    }
    assert count.total.multiply_adds == (27 + 4 * 4) * elements
    assert count.total.flops == (2 * 27 + 2 + 1 + 5 + 2 * 16) * elements
    assert count.parts['0'].multiply_adds == 27 * elements
    assert count.parts['2'].flops == elements
    # convolution and norm at a time, as the norm is not folded
    assert count.peak >= 2 * 4 * elements
    assert not next(model.parameters()).is_meta


def test_operators_without_a_formula_are_reported():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.cumprod(x.t().reshape(3, 4), 0).erfinv() + 1

    count = count_operations(Odd(), lambda m: m(torch.empty(2, 6, device='meta')))
    assert count.unknown == {'cumprod': 1, 'erfinv': 1}
    assert count.total.flops == 12  # the sum


@pytest.mark.parametrize('prepared', [True, False])
def test_the_detector_as_it_runs_does_the_same(root, tmp_path, prepared):
    # heads of 16 channels: narrower ones are multiplied all at once on a CPU
    config = tmp_path / 'wide.py'
    config.write_text(
        f'_base_ = {str(root / "tests/data/tiny.py")!r}\n'
        'narrow = dict(_delete_=True, embed_dims=(128,) * 4, num_layers=(1,) * 4, mlp_ratio=2,\n'
        '              num_paths=(2,) * 4)\n'
        'model = dict(backbone=dict(arch=narrow), neck=dict(in_channels=[128, 128]))\n'
    )
    from mpvit.config.reading import load_config

    size = (160, 192)  # large enough for the kernels of large maps
    model = random_detector(load_config(config)).eval().requires_grad_(False)
    expected = count_operations(model, lambda m: predict(m, made_up(size, torch.device('meta'))))
    if prepared:
        prepare(model)
    with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
        predict(model, made_up(size, torch.device('cpu')))
    found = _operations(counter.get_flop_counts()['Global'])
    assert found.multiply_adds == expected.total.multiply_adds


@pytest.mark.parametrize('config', CONFIG_NAMES)
def test_documented_figures_are_those_that_are_counted(root, config):
    total = numbers(root / CONFIGS / f'{config}.py', FULL, ODD, SMALL)[FULL]['total']
    lines = [
        [cell.strip() for cell in line.split('|')[1:-1]]
        for line in (root / DOCUMENT).read_text().splitlines()
        if line.startswith('|')
    ]
    header = next(line for line in lines if 'G multiply-adds' in line)
    rows = [line for line in lines if len(line) == len(header) and config in line[0]]
    assert rows
    for row in rows:
        found = dict(zip(header, row, strict=True))
        assert found['parameters'] == f'{total.parameters / 1e6:.1f}M'
        assert found['G multiply-adds'] == f'{total.multiply_adds / 1e9:.1f}'
        assert found['GFLOP'] == f'{total.flops / 1e9:.1f}'

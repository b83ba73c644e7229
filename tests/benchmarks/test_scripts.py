"""Every script runs, in small, and hands over rows that say something."""

import importlib

import pytest
import torch

from benchmarks import attention, models, profiling, rivals, table
from mpvit.ops.msda import reference

MEASURED = {
    'attention': 4,  # script: rows with a ratio and a target, whatever is installed
    'detector': 3,
    'training': 4,
    'rivals': 0,
    'export': 0,
    'evaluation': 1,
}


@pytest.mark.slow  # starts many processes, each of which imports everything anew
@pytest.mark.parametrize('script', MEASURED)
def test_quick_rows(script):
    rows = list(importlib.import_module(f'benchmarks.{script}').rows(quick=True))
    measured = [row for row in rows if row.ratio is not None]
    assert all(row.ratio > 0 and row.what for row in measured)
    for row in measured:
        if row.spread:
            assert row.spread[0] <= row.ratio <= row.spread[1]
    assert not any('failed' in row.note for row in rows)
    assert all(row.note for row in rows if row.ratio is None)
    aims = [row for row in measured if row.target is not None]
    assert len(aims) >= MEASURED[script]
    assert len({row.what + row.against + row.note for row in rows}) == len(rows)


def test_every_script_is_tested():
    assert table.SCRIPTS.keys() == MEASURED.keys()


@pytest.mark.parametrize('what', ['detector', 'training'])
def test_profile_names_what_takes_long(what):
    head, _, *rows = profiling.table(profiling.action_of(what, 'fp32', quick=True), 60).splitlines()
    assert head.startswith('| operator | of ')
    shares = {row.split('|')[1].strip(): float(row.split('|')[2].strip(' %')) for row in rows}
    assert 50 < sum(shares.values()) <= 100.5
    assert '`aten::mkldnn_convolution`' in shares
    assert any('ms_deform_attn' in name for name in shares)


def test_huggingface_model_gives_our_outputs():
    pytest.importorskip('transformers', reason="needs transformers: install '.[bench]'")
    ours = models.our_model(models.config_of('r50_ddetr_50e', quick=True))
    size = (90, 119)
    theirs = rivals.hugging_face_outputs(
        rivals.hugging_face(ours.state_dict()), models.image_tensor(size)
    )
    for a, b in zip(models.raw_outputs(ours, size), theirs, strict=True):
        assert (a - b).abs().max() < 1e-4


def test_encoder_shapes_are_those_of_the_detector():
    shapes = attention.level_shapes((800, 1333))
    assert shapes == [(100, 167), (50, 84), (25, 42), (13, 21)]
    assert attention.inputs_of((800, 1333))[2].size(1) == 22223


@pytest.mark.parametrize(
    'rival', dict.fromkeys([*rivals.ATTENTION, *rivals.GPU_ATTENTION]), ids=lambda rival: rival.name
)
@pytest.mark.parametrize('where', ['near', 'anywhere'])
def test_attention_of_rivals_is_the_reference_in_value_and_gradient(rival, where):
    if rival.missing:
        pytest.skip(f'{rival.missing}: install the extras of benchmarks')
    value, shapes, locations, weights = attention.inputs_of((60, 80), where)
    leaves = [t.requires_grad_() for t in (value, locations, weights)]
    upstream = torch.randn(1, value.size(1), 256, generator=torch.Generator().manual_seed(0))
    results = []
    for operator in (rival.build, reference.forward):
        output = operator(leaves[0], shapes, *leaves[1:])
        results.append([output, *torch.autograd.grad(output, leaves, upstream)])
    for a, b in zip(*results, strict=True):
        assert (a - b).abs().max() < 1e-5 * b.abs().max()


def test_mmcvs_attention_is_not_ours(monkeypatch):
    def ours(*_):
        raise AssertionError('it ran ours')

    monkeypatch.setattr('mpvit.ops.msda.op.forward', ours)
    monkeypatch.setattr('mpvit.ops.msda.op._forward_op', ours)
    inputs = attention.inputs_of((60, 80))
    assert rivals.mmcv_attention(*inputs).shape == (1, inputs[0].size(1), 256)


@pytest.mark.parametrize('direction', ['forward', 'backward'])
def test_actions_of_attention_give_the_same_for_all(direction):
    build = getattr(attention, f'{direction}_action')
    ours, theirs = (build(name, (60, 80))() for name in ('fp32', rivals.ATTENTION[0].name))
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() < 1e-4 * b.abs().max()

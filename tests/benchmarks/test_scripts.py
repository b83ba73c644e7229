"""Every script runs, in small, and hands over rows that say something."""

import importlib

import pytest

from benchmarks import attention, huggingface, models, table

MEASURED = {
    'attention': 4,  # script: rows with a ratio and a target
    'backbone': 1,
    'detector': 2,
    'training': 2,
    'huggingface': 1,
    'export': 1,
}


@pytest.mark.slow  # starts many processes, each of which imports everything anew
@pytest.mark.parametrize('script', MEASURED)
def test_quick_rows(script):
    for package in table.SCRIPTS[script]:
        pytest.importorskip(package, reason=f"needs {package}: install '.[bench]'")
    rows = importlib.import_module(f'benchmarks.{script}').rows(quick=True)
    measured = [row for row in rows if row.ratio is not None]
    assert all(row.ratio > 0 and row.what and row.against for row in measured)
    for row in measured:
        if row.spread:
            assert row.spread[0] <= row.ratio <= row.spread[1]
    aims = [row for row in measured if row.target is not None]
    assert len(aims) >= MEASURED[script]
    assert len({row.what + row.against + row.note for row in rows}) == len(rows)


def test_every_script_is_tested():
    assert table.SCRIPTS.keys() - {'evaluation'} == MEASURED.keys()


def test_huggingface_model_gives_our_outputs():
    pytest.importorskip('transformers', reason="needs transformers: install '.[bench]'")
    ours = models.our_model(models.config_of('r50_ddetr_50e', quick=True))
    size = (90, 119)
    theirs = huggingface.their_outputs(
        huggingface.their_model(ours.state_dict()), models.image_tensor(size)
    )
    for a, b in zip(models.raw_outputs(ours, size), theirs, strict=True):
        assert (a - b).abs().max() < 1e-4


def test_encoder_shapes_are_those_of_the_detector():
    shapes = attention.level_shapes((800, 1333))
    assert shapes == [(100, 167), (50, 84), (25, 42), (13, 21)]
    assert attention.inputs_of((800, 1333))[2].size(1) == 22223


@pytest.mark.parametrize('where', ['near', 'anywhere'])
def test_attention_in_place_is_mmcvs_in_value_and_gradient(where):
    inputs = attention.inputs_of((60, 80), where)
    theirs = models.on_stock_attention(lambda: attention.forward(inputs))()
    assert (attention.forward(inputs) - theirs).abs().max() < 1e-5
    action = attention.backward_action((60, 80))
    for a, b in zip(action(), models.on_stock_attention(action)(), strict=True):
        assert (a - b).abs().max() < 1e-4 * b.abs().max()

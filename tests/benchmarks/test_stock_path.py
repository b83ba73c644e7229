"""The stock path is the same model: outputs, detections, losses, gradients and updates."""

import copy

import pytest
import torch
from mmengine.optim import build_optim_wrapper

from benchmarks import detector, models

SIZE = (90, 119)  # no multiple of any stride


@pytest.fixture(scope='module', params=['mpvit_s_ddetr_50e', 'r50_ddetr_50e'])
def config(request):
    return models.config_of(request.param, quick=True)


@pytest.fixture(scope='module')
def ours(config):
    return models.our_model(config)


@pytest.fixture
def stock(config, ours):
    return models.stock_model(config, ours.state_dict())


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = 0.0
    return model


def test_outputs_are_those_of_our_inference(ours, stock):
    theirs = models.on_stock_attention(lambda: models.raw_outputs(stock, SIZE))()
    for model in (ours, models.prepared(ours)):
        for a, b in zip(models.raw_outputs(model, SIZE), theirs, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_outputs_depend_on_the_image_and_differ_between_queries(ours):
    logits, boxes = models.raw_outputs(ours, SIZE)
    assert logits.std(1).mean() > 0.1
    assert boxes.std(1).mean() > 0.02
    others = models.raw_outputs(ours, SIZE, models.image_tensor(SIZE).flip(3))
    assert (others[0] - logits).abs().max() > 0.01


def test_detections_are_the_same(ours, stock):
    mine = models.prediction(models.prepared(ours), SIZE)()[0].pred_instances
    theirs = models.on_stock_attention(models.prediction(stock, SIZE))()[0].pred_instances
    assert len(mine) == 100
    assert detector.agreeing(mine, theirs, SIZE) >= 99  # the last one may tie with the next
    changed = copy.deepcopy(theirs)
    changed.labels = changed.labels + 1
    assert detector.agreeing(mine, changed, SIZE) < 50


def test_contiguous_backbone_keeps_maps_contiguous(config, stock):
    if config.model.backbone.type != 'MPViT':
        pytest.skip("mmdet's ResNet is used as it is")
    assert type(stock.backbone).__name__ == 'ContiguousMPViT'
    with torch.no_grad():
        assert all(f.is_contiguous() for f in stock.backbone(models.image_tensor(SIZE)))


def test_a_training_step_is_the_same(config, ours, stock):
    mine = without_dropout(copy.deepcopy(ours))
    theirs = without_dropout(stock)
    before = copy.deepcopy(mine.state_dict())
    step = models.training_step(
        mine, build_optim_wrapper(mine, config.optim_wrapper), SIZE, batch=2
    )
    optimizer = models.stock_optimizer(config, theirs)
    trained = [p for p in theirs.parameters() if p.requires_grad]
    assert len(optimizer.optimizer.param_groups) == len(trained)
    stock_step = models.on_stock_attention(models.training_step(theirs, optimizer, SIZE, batch=2))
    for _ in range(2):
        losses, expected = step(), stock_step()
        for name in expected:
            torch.testing.assert_close(losses[name], expected[name], atol=2e-3, rtol=2e-3)
    # Adam moves even where a gradient is rounding noise, so updates are compared as a whole
    updates, difference = 0.0, 0.0
    weights = mine.state_dict()
    for name, parameter in theirs.named_parameters():
        updates += float((parameter.detach() - before[name]).square().sum())
        difference += float((parameter.detach() - weights[name]).square().sum())
    assert updates > 0
    assert difference < 0.02 * updates

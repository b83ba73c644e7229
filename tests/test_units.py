"""Single parts against the official numbers: attention, matching and losses, post-processing."""

import json
from pathlib import Path

import numpy as np
import parity_fill
import pytest
import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.layers import SinePositionalEncoding
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mpvit.config.reading import load_config

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def units():
    return dict(np.load(ROOT / 'tests' / 'data' / 'parity' / 'units.npz'))


@pytest.fixture(scope='module')
def head():
    init_default_scope('mmdet')
    model = load_config(ROOT / 'configs' / 'deformable_detr' / 'r50_ddetr_50e.py').model
    # what the detector adds to the config of its head
    extra = dict(share_pred_layer=True, num_pred_layer=1, as_two_stage=False)
    settings = dict(model.bbox_head, num_classes=91, train_cfg=model.train_cfg, **extra)
    return MODELS.build(dict(settings, test_cfg=model.test_cfg))


def close(actual, expected, relative):
    expected = np.asarray(expected, np.float64)
    actual = actual.detach().numpy() if isinstance(actual, torch.Tensor) else actual
    error = np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-12)
    assert error < relative, f'{error:.1e}'


@pytest.mark.parametrize('kind', [2, 4])
def test_attention_module_in_value_and_gradient(units, kind):
    module = MultiScaleDeformableAttention(
        embed_dims=64, num_levels=3, num_heads=8, num_points=4, dropout=0.0, batch_first=True
    )
    state = {
        name: torch.from_numpy(parity_fill.fill(f'units.msda.{name}', value.shape, 0))
        for name, value in module.state_dict().items()
    }
    module.load_state_dict(state)
    query, value, reference = (
        torch.from_numpy(units[f'msda.{name}']).requires_grad_()
        for name in ('query', 'value', f'ref{kind}')
    )
    shapes = torch.from_numpy(units['msda.spatial_shapes']).long()
    starts = torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]])
    output = module(
        query,
        value=value,
        identity=torch.zeros_like(query),
        key_padding_mask=torch.from_numpy(units['msda.mask']).bool(),
        reference_points=reference,
        spatial_shapes=shapes,
        level_start_index=starts,
    )
    close(output, units[f'msda.out{kind}'], 2e-5)
    output.backward(torch.from_numpy(units['msda.grad_out']))
    close(query.grad, units[f'msda.grad_query{kind}'], 1e-3)
    close(value.grad[:, ::5], units[f'msda.grad_value{kind}'], 1e-3)
    close(reference.grad, units[f'msda.grad_ref{kind}'], 1e-3)
    bias = module.sampling_offsets.bias.grad
    close(bias, units[f'msda.grad_sampling_offsets.bias{kind}'], 1e-3)
    weight = module.value_proj.weight.grad[::8]
    close(weight, units[f'msda.grad_value_proj.weight{kind}'], 1e-3)


@pytest.mark.parametrize('tag', 'ABC')
def test_losses_and_their_gradients(units, head, tag):
    logits = torch.from_numpy(units['crit.pred_logits']).requires_grad_()
    boxes = torch.from_numpy(units['crit.pred_boxes']).requires_grad_()
    metas = [dict(img_shape=tuple(int(n) for n in s)) for s in units['crit.img_shapes']]
    targets = [
        InstanceData(
            bboxes=torch.from_numpy(units[f'crit.{tag}.img{i}.boxes']).reshape(-1, 4),
            labels=torch.from_numpy(units[f'crit.{tag}.img{i}.labels']).long(),
        )
        for i in range(2)
    ]
    found = head.loss_by_feat(logits[None], boxes[None], None, None, targets, metas)
    losses = [found[name] for name in ('loss_cls', 'loss_bbox', 'loss_iou')]
    weights = units['crit.loss_weights']
    for loss, value, weight in zip(losses, units[f'crit.{tag}.losses'], weights, strict=True):
        np.testing.assert_allclose(loss.item(), value * weight, rtol=1e-4, atol=1e-6)
    torch.stack([loss.sum() for loss in losses]).sum().backward()
    close(logits.grad[:, ::7, ::5], units[f'crit.{tag}.grad_logits'], 1e-3)
    expected = units[f'crit.{tag}.grad_boxes']
    if np.any(expected):
        close(boxes.grad, expected, 1e-3)
    else:
        assert boxes.grad.abs().max() == 0


def test_postprocessing_keeps_ids_scores_and_unclipped_boxes(units, head):
    logits = torch.from_numpy(units['crit.pred_logits'])
    boxes = torch.from_numpy(units['crit.pred_boxes'])
    outside = 0
    for index in range(2):
        meta = dict(ori_shape=tuple(int(n) for n in units['post.ori_shapes'][index]))
        found = head._predict_by_feat_single(logits[index], boxes[index], meta)
        np.testing.assert_allclose(found.scores, units[f'post.scores{index}'], atol=5e-6)
        np.testing.assert_array_equal(found.labels, units[f'post.labels{index}'])
        np.testing.assert_allclose(found.bboxes, units[f'post.boxes{index}'], atol=0.01)
        outside += int((found.bboxes < 0).any())
    assert outside  # the fixture holds a box that clipping would change


def test_fewer_candidates_than_detections_asked_for(head):
    meta = dict(ori_shape=(10, 20))
    found = head._predict_by_feat_single(torch.zeros(3, 2), torch.rand(3, 4), meta)
    assert len(found.scores) == 6


def test_positional_encoding_of_masked_maps(units):
    encode = SinePositionalEncoding(num_feats=128, normalize=True, offset=-0.5)
    for level in range(4):
        mask = torch.from_numpy(units[f'pos.mask{level}']).bool()
        encoded = encode(mask).masked_fill(mask[:, None], 0)[:, ::9]
        np.testing.assert_allclose(encoded, units[f'pos.embed{level}'], atol=2e-5)


def test_initialisation_of_the_detector_is_the_official_one():
    """Distributions of the tensors whose initialisation decides how training starts."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    config = load_config(ROOT / 'configs' / 'deformable_detr' / 'mpvit_s_ddetr_50e.py').model
    config.backbone.init_cfg = None  # which would be downloaded
    model = MODELS.build(config)
    model.init_weights()
    offsets = model.encoder.layers[0].self_attn.sampling_offsets
    assert offsets.weight.abs().max() == 0
    bias = offsets.bias.view(8, 4, 4, 2)
    angle = 2 * np.pi * np.arange(8) / 8
    direction = np.stack([np.cos(angle), np.sin(angle)], -1)
    direction /= np.abs(direction).max(-1, keepdims=True)
    for point in range(4):
        np.testing.assert_allclose(bias[:, 1, point].detach(), direction * (point + 1), atol=1e-5)
    head = model.bbox_head
    np.testing.assert_allclose(head.cls_branches[0].bias.detach(), -np.log(99), rtol=1e-5)
    last = head.reg_branches[0][-1]
    assert last.weight.abs().max() == 0
    np.testing.assert_allclose(last.bias.detach(), [0, 0, -2, -2])
    assert model.query_embedding.weight.std().item() == pytest.approx(1, rel=0.02)
    assert model.level_embed.std().item() == pytest.approx(1, rel=0.15)
    for conv in [*model.neck.convs, *model.neck.extra_convs]:
        assert conv.conv.bias.abs().max() == 0
        fan_in, fan_out = torch.nn.init._calculate_fan_in_and_fan_out(conv.conv.weight)
        bound = (6 / (fan_in + fan_out)) ** 0.5
        assert conv.conv.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    keys = json.loads((ROOT / 'tests/data/parity/keys/detector_mpvit_small.json').read_text())
    assert sum(p.numel() for p in model.parameters()) + 11 * 257 == keys['num_trainable']

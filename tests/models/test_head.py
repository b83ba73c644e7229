"""The losses of all layers at once against mmdet's, layer by layer and image by image."""

import copy
from collections import Counter
from pathlib import Path

import pytest
import torch
from mmdet.models import DeformableDETRHead
from mmdet.models.losses import iou_loss
from mmdet.models.task_modules.assigners import BBoxL1Cost, match_cost
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch.overrides import TorchFunctionMode

from mpvit.config.reading import load_config
from mpvit.models import matching
from mpvit.models.matching import BroadcastL1Cost

CONFIG = Path(__file__).resolve().parents[2] / 'configs/deformable_detr/mpvit_s_ddetr_50e.py'
LAYERS, QUERIES, POINTS, CLASSES = 3, 30, 200, 80
SHAPES = [(480, 640), (333, 500)]
METAS = [dict(img_id=7 + index, img_shape=shape) for index, shape in enumerate(SHAPES)]


def build_head(assigner=None, **settings):
    init_default_scope('mmdet')
    model = load_config(CONFIG).model
    extra = dict(share_pred_layer=True, num_pred_layer=LAYERS, as_two_stage=False)
    train_cfg = dict(assigner=assigner) if assigner else model.train_cfg
    return MODELS.build({**model.bbox_head, **extra, **settings, 'train_cfg': train_cfg})


def targets(*counts, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    found = []
    for count, (height, width) in zip(counts, SHAPES, strict=True):
        corners = torch.rand(count, 2, 2, generator=generator).sort(dim=1).values
        boxes = (corners * torch.tensor([width, height])).flatten(1).to(dtype)
        labels = torch.randint(CLASSES, (count,), generator=generator)
        found.append(InstanceData(bboxes=boxes, labels=labels))
    return found


def predictions(two_stage=False, dtype=torch.float32):
    """Logits and boxes of layers and of proposals, in the order of `loss_by_feat`."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(LAYERS, 2, QUERIES)] + [(2, POINTS)] * two_stage
    tensors = []
    for shape in shapes:
        logits = torch.randn(*shape, CLASSES, generator=generator) - 3
        boxes = torch.rand(*shape, 4, generator=generator)
        tensors += [t.to(dtype).requires_grad_() for t in (logits, boxes)]
    return tensors if two_stage else [*tensors, None, None]


def losses_and_gradients(compute, inputs, truth):
    losses = compute(*inputs, truth, METAS)
    leaves = [tensor for tensor in inputs if tensor is not None]
    # weights that tell the terms apart
    total = sum(weight * loss.sum() for weight, loss in enumerate(losses.values(), start=1))
    return losses, torch.autograd.grad(total, leaves)


@pytest.mark.parametrize('two_stage', [False, True])
@pytest.mark.parametrize(
    'counts', [(5, 20), (0, 3), (0, 0), (QUERIES + 4, 1)], ids=lambda counts: f'{counts}'
)
def test_losses_and_gradients_are_mmdets(two_stage, counts):
    head = build_head()
    for dtype, tolerance in ((torch.float32, 3e-6), (torch.float64, 1e-12)):
        inputs, truth = predictions(two_stage, dtype), targets(*counts, dtype=dtype)
        ours, gradients = losses_and_gradients(head.loss_by_feat, inputs, truth)
        original = DeformableDETRHead.loss_by_feat.__get__(head)
        expected, expected_gradients = losses_and_gradients(original, inputs, truth)
        assert list(ours) == list(expected)
        for name, loss in ours.items():
            torch.testing.assert_close(
                loss, expected[name].view(()), rtol=tolerance, atol=tolerance
            )
        for gradient, wanted in zip(gradients, expected_gradients, strict=True):
            torch.testing.assert_close(gradient, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    'settings',
    [
        dict(loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True)),
        dict(loss_cls=dict(type='CrossEntropyLoss'), loss_iou=dict(type='IoULoss')),
        dict(loss_bbox=dict(type='SmoothL1Loss', beta=0.1), sync_cls_avg_factor=False),
    ],
    ids=str,
)
def test_other_losses_of_the_config(settings):
    head = build_head(**settings)
    classes = head.cls_out_channels
    logits, boxes, *rest = predictions()
    logits = torch.nn.functional.pad(logits, (0, classes - CLASSES))
    ours = head.loss_by_feat(logits, boxes, *rest, targets(4, 9), METAS)
    expected = DeformableDETRHead.loss_by_feat(head, logits, boxes, *rest, targets(4, 9), METAS)
    for name, loss in expected.items():
        torch.testing.assert_close(ours[name].view(()), loss.view(()), rtol=1e-5, atol=1e-6)


def test_costs_are_those_of_the_config():
    focal = dict(type='FocalLossCost', weight=2.0)
    only = build_head(assigner=dict(type='HungarianAssigner', match_costs=[focal]))
    inputs, truth = predictions(), targets(5, 20)
    ours = only.loss_by_feat(*inputs, truth, METAS)
    expected = DeformableDETRHead.loss_by_feat(only, *inputs, truth, METAS)
    torch.testing.assert_close(ours['loss_bbox'], expected['loss_bbox'], rtol=3e-6, atol=0)
    usual = build_head().loss_by_feat(*inputs, truth, METAS)
    assert usual['loss_bbox'] < 0.9 * ours['loss_bbox']  # which also looks at boxes


class Waits(TorchFunctionMode):
    """Counts what makes the host wait for a device."""

    NAMES = ('cpu', 'item', 'tolist', 'numpy', 'nonzero', 'unique', '__bool__', '__float__')

    def __init__(self) -> None:
        super().__init__()
        self.seen = Counter()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, '__name__', '')
        copies = name == 'new_tensor' or (name == 'tensor' and (kwargs or {}).get('device'))
        if copies or name in (*self.NAMES, '__int__', '__index__'):
            self.seen[name] += 1
        return function(*args, **(kwargs or {}))


def test_one_transfer_for_all_layers_and_images(monkeypatch):
    # what happens on the host afterwards does not count
    monkeypatch.setattr(matching, '_pairs', lambda *_: torch.zeros(3, 1, 0).long())
    inputs, truth = predictions(), targets(5, 20)
    batch = matching.Predictions(inputs[0], inputs[1], truth)
    with Waits() as waits:
        sizes = matching.image_sizes(METAS, batch.boxes)
        matching.match(build_head().assigner.match_costs, [batch], METAS, sizes)
    # mmdet's GIoU makes a tensor of its epsilon, here for each image
    assert waits.seen == {'cpu': 1, 'new_tensor': len(METAS)}


def test_losses_wait_in_mmdets_giou_only(monkeypatch):
    head, inputs, truth = build_head(), predictions(True), targets(5, 20)
    batches = [matching.Predictions(*inputs[:2], truth)]
    batches += [matching.Predictions(*(t[None] for t in inputs[2:]), truth)]
    sizes = matching.image_sizes(METAS, inputs[1])
    known = matching.match(head.assigner.match_costs, batches, METAS, sizes)
    monkeypatch.setattr('mpvit.models.head.match', lambda *_: known)
    with Waits() as waits:
        head.loss_by_feat(*inputs, truth, METAS)
    assert waits.seen == {'new_tensor': 2}  # of decoder and proposals
    monkeypatch.undo()
    with Waits() as waits:
        DeformableDETRHead.loss_by_feat(head, *inputs, truth, METAS)
    assert waits.seen['cpu'] == (LAYERS + 1) * 2  # so mmdet's are seen


@pytest.mark.gpu
def test_on_a_gpu_nothing_else_waits(monkeypatch):
    def allowed(function):
        def call(*args, **kwargs):
            torch.cuda.set_sync_debug_mode('default')
            try:
                return function(*args, **kwargs)
            finally:
                torch.cuda.set_sync_debug_mode('error')

        return call

    head = build_head().cuda()
    inputs = [tensor.detach().cuda() for tensor in predictions(True)]
    truth = [target.to('cuda') for target in targets(5, 20)]
    monkeypatch.setattr(torch.Tensor, 'cpu', allowed(torch.Tensor.cpu))
    for user in (match_cost, iou_loss):
        monkeypatch.setattr(user, 'bbox_overlaps', allowed(user.bbox_overlaps))
    torch.cuda.set_sync_debug_mode('error')
    try:
        head.loss_by_feat(*inputs, truth, METAS)
    finally:
        torch.cuda.set_sync_debug_mode('default')


@pytest.mark.parametrize('box_format', ['xyxy', 'xywh'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_broadcast_cost_is_bit_for_bit_mmdets(box_format, dtype):
    truth = targets(20, 1, dtype=dtype)
    boxes = torch.rand(300, 4, generator=torch.Generator().manual_seed(2), dtype=dtype) * 700
    for objects, meta in zip(truth, METAS, strict=True):
        arguments = (InstanceData(bboxes=boxes), objects, meta)
        ours, expected = (
            cost(box_format=box_format, weight=5.0)(*arguments)
            for cost in (BroadcastL1Cost, BBoxL1Cost)
        )
        assert torch.equal(ours, expected)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('objects', [(2, 2), (0, 0)], ids=['objects', 'empty images'])
def test_losses_say_that_predictions_are_not_finite(value, objects):
    """What follows is not decided here, by one process alone (mpvit.engine.hooks.finite_steps)."""
    inputs = [copy.deepcopy(t.detach()) if t is not None else None for t in predictions()]
    inputs[0][2, 1, 4] = inputs[1][2, 1, :] = value
    losses = build_head().loss_by_feat(*inputs, targets(*objects), METAS)
    assert not sum(losses.values()).isfinite()
    healthy = {name for name, loss in losses.items() if loss.isfinite()}
    assert healthy >= {name for name in losses if name[:2] in ('d0', 'd1')}  # other layers


def test_half_precision_is_left_before_the_losses():
    head, truth = build_head(), targets(5, 20)
    inputs = [t if t is None else t.detach().bfloat16() for t in predictions()]
    losses = head.loss_by_feat(*inputs, truth, METAS)
    exact = head.loss_by_feat(*(t if t is None else t.float() for t in inputs), truth, METAS)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert losses == exact


def test_detections_name_their_queries():
    """Logits and boxes of the query that a detection names are those of the detection."""
    logits, boxes = (tensor[-1, 0].detach() for tensor in predictions()[:2])
    meta = dict(ori_shape=(960, 1280), img_shape=(480, 640))
    found = build_head()._predict_by_feat_single(logits, boxes, meta)
    assert len(found) == 100
    assert len(set(found.queries.tolist())) > 5
    assert torch.equal(found.scores, logits[found.queries, found.labels].sigmoid())
    centres, sizes = boxes[found.queries].split(2, dim=1)
    corners = torch.cat([centres - sizes / 2, centres + sizes / 2], dim=1)
    wanted = corners * torch.tensor([1280, 960, 1280, 960])
    torch.testing.assert_close(found.bboxes, wanted)

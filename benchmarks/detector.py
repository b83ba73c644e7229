"""The MPViT-S detector and its backbone against the stock path, and against the machine."""

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import nn
from torchvision.ops import box_iou, clip_boxes_to_image

from benchmarks._machine import OPERATIONS, REPEATED, SIZES, has_bf16, product_action
from benchmarks._synthetic import FULL, image_tensor
from benchmarks._timing import STOCK, Action, Contender, Row, Turns, in_turn, row_of
from benchmarks.models import (
    config_of,
    on_stock_attention,
    our_model,
    prediction,
    prepared,
    stock_model,
)
from mpvit.model_info import count_operations
from mpvit.model_info.measure import made_up, predict

CONFIG = 'mpvit_s_ddetr_50e'
TARGETS = {'fp32': 2.5, 'bf16': 8.5}
SHARES = {'fp32': 0.6, 'bf16': 0.55}


def agreeing(ours: InstanceData, theirs: InstanceData, size: tuple[int, int]) -> int:
    """How many of our detections they have too: label, score within 0.005 and IoU over 0.95.

    Args:
        ours: Detections of one image.
        theirs: Of the same image.
        size: Height and width of the image in pixels; mmdet's own head clips boxes to it.
    """
    iou = box_iou(*(clip_boxes_to_image(d.bboxes.float(), size) for d in (ours, theirs)))
    same = (
        (ours.labels[:, None] == theirs.labels)
        & ((ours.scores[:, None] - theirs.scores).abs() < 0.005)
        & (iou > 0.95)
    )
    return int(same.any(1).sum())


def flops_of(model: nn.Module, size: tuple[int, int]) -> int:
    """Floating-point operations of the products, convolutions and samples of one image."""
    inputs = made_up(size, torch.device('meta'))
    return 2 * count_operations(model, lambda copied: predict(copied, inputs)).total.multiply_adds


def detections(model: nn.Module, size: tuple[int, int]) -> Action:
    """Inference, from the normalised image to boxes, scores and labels."""
    run = prediction(model, size)

    def action() -> list[torch.Tensor]:
        found = run()[0].pred_instances
        return [found.bboxes, found.scores, found.labels]

    return action


def our_action(size: tuple[int, int], quick: bool, dtype: str) -> Action:
    """Inference as the project runs it."""
    return detections(prepared(our_model(config_of(CONFIG, quick)), dtype), size)


def stock_action(size: tuple[int, int], quick: bool) -> Action:
    """Inference on the stock path."""
    config = config_of(CONFIG, quick)
    stock = stock_model(config, our_model(config).state_dict())
    return on_stock_attention(detections(stock, size))


def backbone_action(size: tuple[int, int], quick: bool, stock: bool) -> Action:
    """Features of an image, without gradients: as the project runs it, or on contiguous maps."""
    config = config_of(CONFIG, quick)
    model = our_model(config)
    model = stock_model(config, model.state_dict()) if stock else prepared(model)
    images = image_tensor(size)
    return torch.no_grad()(lambda: model.backbone(images))


def agreement(turns: Turns, dtype: str, size: tuple[int, int]) -> str:
    """How many detections are the same on the stock path, for a note."""
    if not {dtype, 'stock'} <= turns.outputs.keys():
        return ''
    ours, theirs = (instances(turns.outputs[name]) for name in (dtype, 'stock'))
    return f'{agreeing(ours, theirs, size)} of {len(theirs)} detections the same'


def instances(arrays: list[Any]) -> InstanceData:
    """What `detections` gave, from the other process."""
    names = ('bboxes', 'scores', 'labels')
    return InstanceData(**dict(zip(names, map(torch.from_numpy, arrays), strict=True)))


def machine_rows(turns: Turns, dtype: str, flops: int, what: str) -> Iterator[Row]:
    """Rates of products, and the share of the best of them that the detector reaches."""
    rates = {}
    for kind, operations in OPERATIONS.items():
        seconds = turns.seconds[f'{kind} {dtype}']
        rates[kind] = [REPEATED * operations / s / 1e9 for s in seconds]
        name = f"the machine's {kind}, {SIZES[kind]}, {dtype}"
        yield row_of(rates[kind], name, '', None, '', 'GFLOP/s')
    best = map(max, zip(*rates.values(), strict=True))
    shares = [flops / s / 1e9 / r for s, r in zip(turns.seconds[dtype], best, strict=True)]
    note = f'{flops / 1e9:.0f} GFLOP in {turns.median(dtype):.3g} s'
    against = f'the faster of these two products, {dtype}'
    yield row_of(shares, f'share of the rate, {what}, {dtype}', against, SHARES[dtype], note, '%')


def rows(quick: bool) -> Iterator[Row]:
    """Time from the normalised image to detections, and of the backbone by itself."""
    size, runs = ((128, 160), 2) if quick else (FULL, 5)
    dtypes = list(TARGETS) if has_bf16() else ['fp32']
    contenders = {'stock': Contender(stock_action, (size, quick), STOCK)}
    for dtype in dtypes:
        contenders[dtype] = Contender(our_action, (size, quick, dtype))
        for kind in OPERATIONS:
            contenders[f'{kind} {dtype}'] = Contender(product_action, (kind, dtype))
    turns = in_turn(contenders, runs, 60)
    what = f'MPViT-S detector, {size[0]}x{size[1]}'
    flops = flops_of(our_model(config_of(CONFIG, quick)), size)
    for dtype, target in TARGETS.items():
        if dtype not in dtypes:
            note = 'this CPU has no bf16 arithmetic'
            yield Row(f'{what}, {dtype}', 'the stock path, fp32', None, None, target, note)
            continue
        note = agreement(turns, dtype, size)
        against = 'the stock path, fp32'
        yield turns.row(f'{what}, {dtype}', against, (dtype, 'stock'), target, note)
        yield from machine_rows(turns, dtype, flops, what)
    what = f'MPViT-S backbone, {size[0]}x{size[1]}, fp32'
    backbones = {
        'ours': Contender(backbone_action, (size, quick, False)),
        'stock': Contender(backbone_action, (size, quick, True), STOCK),
    }
    turns = in_turn(backbones, 2 if quick else 9, 25)
    yield turns.row(what, 'the same on contiguous maps', ('ours', 'stock'), 1.5)

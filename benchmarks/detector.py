"""The MPViT-S detector against the same detector on the stock path, and against the machine."""

import re
import statistics
from pathlib import Path

import torch
from mmengine.structures import InstanceData
from torch import nn
from torchvision.ops import box_iou, clip_boxes_to_image

from benchmarks._timing import Action, Row, main, paired, seconds
from benchmarks.models import (
    FULL,
    config_of,
    on_stock_attention,
    on_stock_path,
    our_model,
    prediction,
    prepared,
    raw_outputs,
    stock_model,
)
from mpvit.model_info import count_operations
from mpvit.model_info.measure import made_up, predict

CONFIG = 'mpvit_s_ddetr_50e'
STOCK = 'the stock path'


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


def agreement(ours: nn.Module, stock: nn.Module, size: tuple[int, int]) -> str:
    """How far the results of both detectors are apart, for a note."""
    theirs = on_stock_attention(lambda: raw_outputs(stock, size))()
    pairs = zip(raw_outputs(ours, size), theirs, strict=True)
    logits, boxes = (float((a.float() - b).abs().max()) for a, b in pairs)
    mine = prediction(ours, size)()[0].pred_instances
    other = on_stock_attention(prediction(stock, size))()[0].pred_instances
    return (
        f'{agreeing(mine, other, size)} of {len(other)} detections the same, '
        f'logits differ by {logits:.0e}, boxes by {boxes * max(size):.0e} px'
    )


def has_bf16() -> bool:
    """Whether this CPU multiplies in bf16."""
    flags = re.search(r'^flags.*$', Path('/proc/cpuinfo').read_text(), re.MULTILINE)
    return bool(flags) and bool({'avx512_bf16', 'amx_bf16'} & set(flags[0].split()))


def flops_of(model: nn.Module, size: tuple[int, int]) -> int:
    """Floating-point operations of the products, convolutions and samples of one image."""
    inputs = made_up(size, torch.device('meta'))
    return 2 * count_operations(model, lambda copied: predict(copied, inputs)).total.multiply_adds


def matmul_rate(sizes: tuple[int, ...]) -> float:
    """Operations per second of the fastest of several square matrix products."""
    rates = []
    for n in sizes:
        a, b = torch.randn(n, n), torch.randn(n, n)
        rates += [2 * n**3 / seconds(lambda a=a, b=b: a @ b) for _ in range(3)]
    return max(rates)


def share_row(ours: nn.Module, plain: nn.Module, size: tuple[int, int], quick: bool) -> Row:
    """Our operations per second against a matrix product's, measured in turn."""
    flops, action, sizes = flops_of(plain, size), prediction(ours, size), (1024, 2048, 4096)
    shares, times, rates = [], [], []
    for _ in range(3 if quick else 5):
        rates.append(matmul_rate(sizes[:1] if quick else sizes))
        times.append(seconds(action))
        shares.append(flops / times[-1] / rates[-1])
    return Row(
        f"share of the machine's matrix-product rate, MPViT-S detector, {size[0]}x{size[1]}, fp32",
        'best of several large fp32 matrix products',
        statistics.median(shares),
        (min(shares), max(shares)),
        0.6,
        f'{flops / 1e9:.0f} GFLOP in {statistics.median(times):.3g} s; '
        f'matrix product {statistics.median(rates) / 1e9:.0f} GFLOP/s',
        '%',
    )


def stock_action(size: tuple[int, int], quick: bool) -> Action:
    """Inference on the stock path."""
    config = config_of(CONFIG, quick)
    stock = stock_model(config, our_model(config).state_dict())
    return on_stock_attention(prediction(stock, size))


def rows(quick: bool) -> list[Row]:
    """Time from the normalised image to detections."""
    size, runs = ((128, 160), 3) if quick else (FULL, 5)
    config = config_of(CONFIG, quick)
    plain = our_model(config)
    stock = stock_model(config, plain.state_dict())
    what = f'MPViT-S detector, {size[0]}x{size[1]}'
    table = []
    with on_stock_path(stock_action, size, quick) as theirs:
        ours = prepared(plain)
        pairs = paired(prediction(ours, size), theirs, runs)
        table.append(pairs.row(f'{what}, fp32', STOCK, 2.5, agreement(ours, stock, size)))
        table.append(share_row(ours, plain, size, quick))
        if has_bf16():
            half = prepared(plain, 'bf16')
            pairs = paired(prediction(half, size), theirs, runs)
            note = agreement(half, stock, size)
            table.append(pairs.row(f'{what}, bf16', f'{STOCK}, fp32', 3.5, note))
        else:
            note = 'this CPU has no bf16 arithmetic'
            table.append(Row(f'{what}, bf16', f'{STOCK}, fp32', None, None, 3.5, note))
    return table


if __name__ == '__main__':
    main(rows, __doc__)

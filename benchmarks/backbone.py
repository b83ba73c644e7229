"""The MPViT-S backbone on its own layout, against the same network on contiguous maps."""

import torch
from torch import nn

from benchmarks._timing import Action, Row, main, paired
from benchmarks.models import FULL, config_of, image_tensor, our_model, prepared, stock_model


def action_of(backbone: nn.Module, size: tuple[int, int]) -> Action:
    """Features of an image, without gradients."""
    images = image_tensor(size)

    @torch.no_grad()
    def run() -> tuple[torch.Tensor, ...]:
        return backbone(images)

    return run


def rows(quick: bool) -> list[Row]:
    """Time of the backbone."""
    size = (128, 160) if quick else FULL
    config = config_of('mpvit_s_ddetr_50e', quick)
    plain = our_model(config)
    stock = stock_model(config, plain.state_dict())
    theirs = action_of(stock.backbone, size)
    runs = 3 if quick else 7
    what = f'MPViT-S backbone, {size[0]}x{size[1]}, fp32'
    return [
        paired(action_of(prepared(plain).backbone, size), theirs, runs).row(
            what, 'the same on contiguous maps', 1.5, 'norms folded'
        ),
        paired(action_of(plain.backbone, size), theirs, runs).row(
            what, 'the same on contiguous maps', None, 'layout alone, norms not folded'
        ),
    ]


if __name__ == '__main__':
    main(rows, __doc__)

"""The MPViT-S backbone on its own layout, against the same network on contiguous maps."""

import torch
from torch import nn

from benchmarks._timing import Action, Row, main, paired
from benchmarks.models import (
    FULL,
    config_of,
    image_tensor,
    on_stock_path,
    our_model,
    prepared,
    stock_model,
)

CONFIG = 'mpvit_s_ddetr_50e'


def action_of(backbone: nn.Module, size: tuple[int, int]) -> Action:
    """Features of an image, without gradients."""
    images = image_tensor(size)

    @torch.no_grad()
    def run() -> tuple[torch.Tensor, ...]:
        return backbone(images)

    return run


def stock_action(size: tuple[int, int], quick: bool) -> Action:
    """The same on contiguous maps."""
    config = config_of(CONFIG, quick)
    return action_of(stock_model(config, our_model(config).state_dict()).backbone, size)


def rows(quick: bool) -> list[Row]:
    """Time of the backbone."""
    size, runs = ((128, 160), 3) if quick else (FULL, 7)
    plain = our_model(config_of(CONFIG, quick))
    what, against = f'MPViT-S backbone, {size[0]}x{size[1]}, fp32', 'the same on contiguous maps'
    with on_stock_path(stock_action, size, quick) as theirs:
        return [
            paired(action_of(prepared(plain).backbone, size), theirs, runs).row(
                what, against, 1.5, 'as it runs: norms folded'
            ),
            paired(action_of(plain.backbone, size), theirs, runs).row(
                what, against, None, 'norms not folded'
            ),
        ]


if __name__ == '__main__':
    main(rows, __doc__)

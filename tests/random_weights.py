"""Weights such that no tensor of a model hides behind zeros, ones or another that is equal."""

import torch
from torch import nn


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0) -> None:
    """Give a detector weights that keep its activations in a sensible range, in place."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            continue
        normal = torch.randn(value.shape, generator=generator)
        if name.endswith('running_var'):
            value.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith(('position_embeddings.weight', 'query_embedding.weight', 'level_embed')):
            value.copy_(normal)
        elif value.dim() == 1:
            value.add_(0.1 * normal)
        else:
            value.copy_(normal / value[0].numel() ** 0.5)


@torch.no_grad()
def rank_padding_last(norm: nn.Module, linear: nn.Linear, scores: nn.Linear) -> None:
    """Keep points in the padding, which are all alike, from the proposals of two stages.

    Args:
        norm: What the encoder's output ends with.
        linear: The layer before it.
        scores: Class layer of the proposals, of whose first channel the weights are changed.
    """
    padding = norm(linear.bias)
    row = scores.weight[0]
    row -= (row @ padding + 3) / padding.square().sum() * padding

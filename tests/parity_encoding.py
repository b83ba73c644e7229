"""The positional encoding of the detectors' fixtures, to the last bit, whatever the CPU's sine.

The official code computes it in float32 in a float64 model too, and so does mmdet. The last bit of
a float32 sine depends on the CPU and moves the outputs of a float64 detector by up to 5e-9, above
the 1e-9 that the tests allow. So the fixtures' last bits are stored: `sine_last_bits.npz` has, for
each level, what to add to the bits of the exactly rounded sine (0 for 97 % of them).
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

LAST_BITS = Path(__file__).resolve().parent / 'data' / 'parity' / 'sine_last_bits.npz'
CHANNELS, TEMPERATURE, OFFSET, EPSILON = 128, 10000.0, np.float32(0.5), np.float32(1e-6)
MOST_UNITS = 4  # in the last place of float32: what libraries promise of a sine


def exactly_rounded(mask: np.ndarray) -> np.ndarray:
    """The encoding with float32 angles and exactly rounded sines.

    Args:
        mask: Shape ``(B, H, W)``, true where an image is padded.

    Returns:
        Float32, shape ``(B, 256, H, W)``.
    """
    channel = np.arange(CHANNELS)
    period = (TEMPERATURE ** (2 * (channel // 2) / CHANNELS)).astype(np.float32)
    halves = []
    for axis in (1, 2):
        count = np.cumsum(~mask, axis, dtype=np.float32)
        last = np.take(count, [-1], axis)
        angle = (count - OFFSET) / (last + EPSILON) * np.float32(2 * np.pi)
        angle = (angle[..., None] / period).astype(np.float64)
        halves.append(np.where(channel % 2, np.cos(angle), np.sin(angle)).astype(np.float32))
    return np.ascontiguousarray(np.concatenate(halves, -1).transpose(0, 3, 1, 2))


def official(mask: np.ndarray) -> np.ndarray:
    """The encoding that the fixtures' numbers were made with, as `exactly_rounded`."""
    with np.load(LAST_BITS) as file:
        bits = next(level for level in file.values() if level.shape[2:] == mask.shape[1:])
    return (exactly_rounded(mask).view(np.int32) + bits).view(np.float32)


def use_official(encoding: nn.Module) -> None:
    """Let a detector's module hand on the fixtures' encoding, after a look at its own."""

    def hook(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        wanted = torch.from_numpy(official(arguments[0].bool().numpy()))
        assert output.dtype == torch.float32
        torch.testing.assert_close(output, wanted, rtol=0, atol=MOST_UNITS * 2**-24)
        return wanted

    encoding.register_forward_hook(hook)

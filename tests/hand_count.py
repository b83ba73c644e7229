"""Multiply-adds of detectors with MPViT by closed formulas, written down from the papers.

Nothing here comes from the package.
"""

from dataclasses import dataclass
from math import ceil

HEADS = 8
WINDOWS = {3: 2, 5: 3, 7: 3}  # heads by window of the relative position encoding
MPVIT = {  # width, layers, paths of each stage; MLP ratio
    't': ((64, 96, 176, 216), (1, 2, 4, 1), (2, 3, 3, 3), 2),
    'xs': ((64, 128, 192, 256), (1, 2, 4, 1), (2, 3, 3, 3), 4),
    's': ((64, 128, 216, 288), (1, 3, 6, 3), (2, 3, 3, 3), 4),
    'b': ((128, 224, 368, 480), (1, 3, 8, 3), (2, 3, 3, 3), 4),
}


def halved(size):
    return tuple(ceil(n / 2) for n in size)


def area(size):
    return size[0] * size[1]


def conv(kernel, before, after, size, groups=1):
    return kernel**2 * before // groups * after * area(size)


def factorized_layer(width, ratio, size):
    """Position encoding, attention of linear cost and MLP of one layer."""
    tokens = area(size)
    relative = sum(conv(k, 1, heads * width // HEADS, size) for k, heads in WINDOWS.items())
    return (
        conv(3, width, width, size, groups=width)
        + relative
        + tokens * width * 3 * width  # query, key, value
        + 2 * tokens * width * (width // HEADS)  # softmax(k)^T v, then q times that
        + tokens * width * width
        + 2 * tokens * width * ratio * width
    )


def mpvit(widths, layers, paths, ratio, size):
    """Multiply-adds of the backbone, and the sizes of its outputs."""
    size = halved(size)
    total = conv(3, 3, widths[0] // 2, size)
    size = halved(size)
    total += conv(3, widths[0] // 2, widths[0], size)
    sizes = []
    # the last stages may not be built
    for stage, (width, depth, branches) in enumerate(zip(widths, layers, paths, strict=False)):
        size = halved(size) if stage else size
        sizes.append(size)
        out = widths[min(stage + 1, len(widths) - 1)]
        depthwise, pointwise = conv(3, width, width, size, width), conv(1, width, width, size)
        total += branches * (depthwise + pointwise)
        total += 2 * pointwise + depthwise  # the local branch
        total += branches * depth * factorized_layer(width, ratio, size)
        total += conv(1, (branches + 1) * width, out, size)
    return total, sizes


@dataclass
class Transformer:
    """Dimensions of what follows the backbone; those of the paper unless told otherwise."""

    width: int = 256
    hidden: int = 1024
    queries: int = 300
    encoder_layers: int = 6
    decoder_layers: int = 6
    classes: int = 80
    heads: int = 8
    levels: int = 4
    points: int = 4
    refine: bool = False
    two_stage: bool = False

    def attention(self, queries, values):
        samples = self.heads * self.levels * self.points
        return (
            (values + queries) * self.width**2  # projections of values and output
            + queries * self.width * samples * (2 + 1)  # offsets and weights
            # four corners and the weight, for each channel of a head
            + queries * samples * (4 + 1) * self.width // self.heads
        )

    def parts(self, channels, sizes):
        """Multiply-adds by part.

        Args:
            channels: Of the backbone's outputs that the neck takes.
            sizes: Of these outputs.
        """
        width, queries = self.width, self.queries
        neck = sum(conv(1, n, width, size) for n, size in zip(channels, sizes, strict=True))
        sizes = list(sizes)
        for _ in range(self.levels - len(sizes)):  # one at most
            sizes.append(halved(sizes[-1]))
            neck += conv(3, channels[-1], width, sizes[-1])
        tokens = sum(map(area, sizes))
        ffn = 2 * width * self.hidden
        box = 2 * width**2 + 4 * width
        decoder_layer = (
            4 * queries * width**2  # self-attention
            + 2 * queries**2 * width
            + self.attention(queries, tokens)
            + queries * ffn
            + self.refine * queries * box
        )
        proposals = tokens * (width**2 + width * self.classes + box) + queries * (2 * width) ** 2
        return dict(
            neck=neck,
            encoder=self.encoder_layers * (self.attention(tokens, tokens) + tokens * ffn),
            decoder=self.decoder_layers * decoder_layer,
            bbox_head=self.decoder_layers * queries * (width * self.classes + box),
            rest=proposals if self.two_stage else queries * width * 2,  # reference points
        )

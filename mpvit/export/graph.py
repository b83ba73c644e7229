"""The whole detector as one function of tensors: pixels in; boxes, scores and labels out.

It runs the detector's own layers. What stands here instead of mmdet's code are the places where
that reads sizes out of tensors or data samples, which would make constants of them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmdet.models import DeformableDETR
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision.ops import box_convert

INPUTS = {
    'images': (
        'uint8 (batch, 3, height, width): pixels of the resized images, 0 to 255, in '
        'channel_order, each in the upper left corner; what lies right of or below an image is '
        'ignored'
    ),
    'sizes': 'int64 (batch, 2): height and width of each image in pixels, without padding',
}
OUTPUTS = {
    'boxes': (
        'float32 (batch, detections, 4): x1, y1, x2, y2 in pixels of the image in `images`, not '
        'clipped to it; multiply by the original size over the one in `sizes`'
    ),
    'scores': 'float32 (batch, detections): in [0, 1], best first; no threshold is applied',
    'labels': 'int64 (batch, detections): index into classes',
}


class DetectorGraph(nn.Module):
    """What is exported of a Deformable DETR in eval mode."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: DeformableDETR) -> None:
        super().__init__()
        self.model = model
        channels = torch.zeros(1, 3, 1, 1)
        pixels = model.data_preprocessor
        for name, neutral in (('mean', 0.0), ('std', 1.0)):
            value = getattr(pixels, name, torch.tensor(neutral)).cpu()
            self.register_buffer(name, channels + value)

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detect; see `INPUTS` and `OUTPUTS`."""
        with _Exportable():
            maps = self.model.extract_feat(self._normalised(images, sizes))
            hidden, reference = self._transformed(maps, sizes, _size(images))
            return self._detections(hidden, reference, sizes)

    def _normalised(self, images: Tensor, sizes: Tensor) -> Tensor:
        """As mmdet's data preprocessor: padding is 0 after the normalisation."""
        pixels = (images.float() - self.mean) / self.std
        inside = _inside(sizes, _size(images), _size(images))[0]
        return pixels.masked_fill(~inside[:, None], 0)

    def _transformed(
        self, maps: Sequence[Tensor], sizes: Tensor, input_size: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """The last decoder layer's output and the reference points it refines."""
        model = self.model
        parts = (self._level(index, level, sizes, input_size) for index, level in enumerate(maps))
        levels = list(zip(*parts, strict=True))
        tokens, positions, masks = (torch.cat(parts, 1) for parts in levels[:3])
        shared: dict[str, Any] = dict(
            spatial_shapes=levels[4], level_start_index=None, valid_ratios=torch.stack(levels[3], 1)
        )
        encoded = model.forward_encoder(feat=tokens, feat_mask=masks, feat_pos=positions, **shared)
        queries, _ = model.pre_decoder(**encoded)
        decoded = model.forward_decoder(memory_mask=masks, **shared, **queries)
        return decoded['hidden_states'][-1], decoded['references'][-2]

    def _level(
        self, level: int, maps: Tensor, sizes: Tensor, input_size: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[int, int]]:
        """Tokens, their positions, padding, valid share ``(x, y)`` and size of a level."""
        height, width = _size(maps)
        inside, rows, columns = _inside(sizes, input_size, (height, width))
        mask = ~inside
        positions = self.model.positional_encoding(mask).flatten(2).transpose(1, 2)
        valid = [columns.sum(1).float() / width, rows.sum(1).float() / height]
        return (
            maps.flatten(2).transpose(1, 2),
            positions + self.model.level_embed[level],
            mask.flatten(1),
            torch.stack(valid, -1),
            (height, width),
        )

    def _detections(
        self, hidden: Tensor, reference: Tensor, sizes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As our head, for all images at once."""
        head, layer = self.model.bbox_head, self.model.decoder.num_layers - 1
        logits = head.cls_branches[layer](hidden)
        # the reference has no width and height where boxes are not refined
        start = nn.functional.pad(torch.logit(reference, eps=1e-5), (0, 4 - reference.shape[-1]))
        boxes = (head.reg_branches[layer](hidden) + start).sigmoid()
        queries, classes = logits.shape[1:]
        count = min(head.test_cfg.get('max_per_img', queries), queries * classes)
        scores, indices = logits.sigmoid().flatten(1).topk(count)
        best = torch.div(indices, classes, rounding_mode='floor')[..., None].expand(-1, -1, 4)
        corners = box_convert(boxes.gather(1, best), 'cxcywh', 'xyxy')
        return corners * sizes.flip(1).repeat(1, 2)[:, None], scores, indices % classes


def _size(maps: Tensor) -> tuple[int, int]:
    """Height and width."""
    return maps.size(2), maps.size(3)


def _inside(
    sizes: Tensor, input_size: Sequence[int], map_size: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Where a map lies inside of the image, by the nearest pixel as in mmdet.

    Args:
        sizes: Height and width of the images, shape ``(B, 2)``.
        input_size: Height and width of the padded images.
        map_size: Those of the map.

    Returns:
        By position ``(B, h, w)``, by row ``(B, h)``, by column ``(B, w)``.
    """
    # floor(place * full / length) < size, without the division: runtimes round it differently
    rows, columns = (
        torch.arange(length) * full < size[:, None] * length
        for size, full, length in zip(sizes.unbind(1), input_size, map_size, strict=True)
    )
    return rows[:, :, None] & columns[:, None, :], rows, columns


# mmdet takes no proposals whose centre lies within 1% of the border, and (0.5 / 50) is just that.
# Runtimes that multiply by 1 / 50 may take it, so what is equal is moved to the side of mmdet. The
# next centres are 1 / 200 of a pixel of the map away.
_BORDERS = {('gt', 0.01): 0.01 + 1e-6, ('lt', 0.99): 0.99 - 1e-6}


class _Exportable(TorchFunctionMode):
    """Replaces what does not survive in a graph while mmdet's code runs.

    mmdet calls ``linspace`` for steps of 1 only, with as many steps as a map has rows or columns;
    ``linspace`` has a fixed number of them in a graph, ``arange`` has not. See also `_BORDERS`.
    """

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.linspace:
            start, _, steps = args
            return torch.arange(steps, **kwargs) + start
        if len(args) == 2 and isinstance(args[1], float):
            key = (getattr(func, '__name__', '').strip('_'), args[1])
            args = (args[0], _BORDERS.get(key, args[1]))
        return func(*args, **kwargs)

"""Image transforms that reproduce the official ones to the pixel."""

from typing import Any

from mmdet.datasets.transforms import Resize
from mmdet.registry import TRANSFORMS


def official_size(
    height: int, width: int, short: int, longest: int | None = None
) -> tuple[int, int]:
    """The height and width in pixels of a resized image by the official rule.

    The short side gets the length ``short``, or less where the long one is limited. The long side
    is truncated, not rounded, and may end up a few pixels on either side of its limit ``longest``.
    """
    low, high = min(height, width), max(height, width)
    # the order of the operations matters: it decides about the last pixel
    if longest is not None and high / low * short > longest:
        short = max(1, round(longest * low / high))  # the official code stops at 0
    if low == short:
        return height, width
    if width < height:
        return int(short * height / width), short
    return short, int(short * width / height)


@TRANSFORMS.register_module()
class ShortSideResize(Resize):
    """Resize the short side to a length, with a limit for the long one, as DETR does.

    mmdet's `Resize` rounds the long side and caps it exactly, which differs for half of all image
    sizes, mostly by one pixel. Boxes are scaled by the exact ratio of each axis.

    Args:
        scale: ``(short side, limit of the long side)`` in pixels, or the short side alone.
        backend: 'pillow' filters as the official code does; 'cv2' is faster and does not
            antialias when it shrinks.
        **kwargs: As for mmdet's `Resize`.
    """

    def __init__(
        self, scale: int | tuple[int, int], backend: str = 'pillow', **kwargs: Any
    ) -> None:
        super().__init__(scale=scale, backend=backend, keep_ratio=False, **kwargs)
        self.scale: int | tuple[int, int] = scale

    def _resize_img(self, results: dict[str, Any]) -> None:
        """Resize the image; mmdet's `Resize` then scales boxes by the factors found here."""
        short, longest = self.scale if isinstance(self.scale, tuple) else (self.scale, None)
        height, width = results['img'].shape[:2]
        height, width = official_size(height, width, short, longest)
        results['scale'] = (width, height)
        # A decoded image is a BGR view of an RGB array. Pillow filters each channel by itself, so
        # both orders give the same pixels, but it needs a copy of the view, pixel by pixel.
        _, column, channel = (*results['img'].strides, 0)[:3]
        is_view = channel < 0 < column
        if is_view:
            results['img'] = results['img'][..., ::-1]
        super()._resize_img(results)
        if is_view:
            results['img'] = results['img'][..., ::-1]

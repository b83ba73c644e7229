"""Image transforms that reproduce the official ones to the pixel, and the reader of images."""

import io
from typing import Any

import mmcv
import numpy as np
from mmcv.transforms import TRANSFORMS as MMCVS
from mmcv.transforms import LoadImageFromFile as MmcvsLoadImageFromFile
from mmdet.datasets.transforms import Resize
from mmdet.registry import TRANSFORMS
from mmengine import fileio

from mpvit.files.paths import is_address
from mpvit.files.untrusted import IMAGE_BYTES, of_any_size, open_image, read_untrusted


@MMCVS.register_module(name='LoadImageFromFile', force=True)
class LoadImageFromFile(MmcvsLoadImageFromFile):
    """mmcv's reader of images, by whatever decoder, for files that may come from strangers.

    A file is read only if it is a regular one in one of the formats and within the limits of
    `mpvit.files.untrusted`. The pixels are those of mmcv's.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Add ``img``, ``(H, W, 3)``, and its shape to a record with ``img_path``.

        Raises:
            OSError: It cannot be read.
            Exception: It is damaged; each decoder has errors of its own.
        """
        path = results['img_path']
        try:
            data = self._content(path)
            with open_image(io.BytesIO(data)):
                pass
            with of_any_size():
                image = mmcv.imfrombytes(data, flag=self.color_type, backend=self.imdecode_backend)
            if image is None:  # OpenCV says no more
                raise OSError('OpenCV cannot decode it')
        except Exception:
            if self.ignore_empty:
                return None
            raise
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _content(self, path: str) -> bytes:
        if self.file_client_args is not None:
            client = fileio.FileClient.infer_client(self.file_client_args, path)
            return bytes(client.get(path))
        if self.backend_args is None and not is_address(path):
            return read_untrusted(path, IMAGE_BYTES)
        return bytes(fileio.get(path, backend_args=self.backend_args))


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

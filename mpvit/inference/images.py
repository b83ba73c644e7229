"""Images in any form as one form: upright RGB arrays of 8 bits."""

import os
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mpvit.errors import UserError
from mpvit.files.exif import upright
from mpvit.files.untrusted import FORMATS, MOST_PIXELS, open_image
from mpvit.inference.inputs import place_of

Pixels = NDArray[np.uint8]
_CANVAS = (124, 117, 104)  # behind grayscale images with alpha, as mmcv reads them in training


def as_pixels(image: Any) -> Pixels:
    """An image in any of the forms that users have.

    Args:
        image: A file or URL; a Pillow image; a numpy array ``(H, W)`` or ``(H, W, C)`` in the order
            BGR(A) of OpenCV and mmdet; or a tensor ``(C, H, W)`` or ``(H, W)`` in the order RGB(A)
            of torchvision. Numbers are unsigned integers of 8 or 16 bits or floats in [0, 1].

    Returns:
        RGB, shape ``(H, W, 3)``, turned as the EXIF data say.

    Raises:
        UserError: It cannot be read or is no image.
    """
    if isinstance(image, (str, os.PathLike)):
        place = place_of(image)
        if place.is_video:
            raise UserError(f'{image} is a video; give it to Detector.predict')
        with place.file() as file:
            return read_image(file, place.path)
    if isinstance(image, Image.Image):
        return from_pillow(image)
    if isinstance(image, np.ndarray):
        pixels = _from_array(image)
        return pixels[..., ::-1]
    import torch  # not at the top: files are read and drawn without it

    if isinstance(image, torch.Tensor):
        array = image.detach().cpu()
        array = array.to(torch.float32) if array.dtype == torch.bfloat16 else array
        return _from_array((array.permute(1, 2, 0) if array.dim() == 3 else array).numpy())
    raise UserError(
        f'an input is a {type(image).__name__}; give a path, a URL, a numpy array, a Pillow image '
        'or a tensor'
    )


def read_image(
    source: str | os.PathLike[str] | BinaryIO,
    name: str | None = None,
    *,
    formats: Sequence[str] = FORMATS,
    most_pixels: int = MOST_PIXELS,
) -> Pixels:
    """Read an image file; of an animation or a document with several pages the first one.

    Args:
        source: Path, or an open file.
        name: What to call it in errors; None for the path.
        formats: Pillow's names of those that are read, whatever the file is called.
        most_pixels: Larger images are refused before they are decoded.

    Returns:
        RGB, shape ``(H, W, 3)``, turned as the EXIF data say. Alpha is left out. 16 bits are scaled
        to 8.

    Raises:
        UserError: It cannot be read.
    """
    try:
        with open_image(source, formats, most_pixels) as image:
            return from_pillow(image)
    except UserError as error:
        reason = str(error)
    except MemoryError:
        reason = 'it does not fit into memory'
    except Image.UnidentifiedImageError as error:
        if isinstance(source, (str, os.PathLike)):
            length = os.path.getsize(source)
        else:
            length = source.seek(0, os.SEEK_END)
        reason = str(error) if length else 'it is empty'
    except Exception as error:  # each format has errors of its own
        system = isinstance(error, OSError) and error.strerror
        reason = system or f'damaged or incomplete ({type(error).__name__}: {error})'
    raise UserError(f'{name or source} cannot be read: {reason}')


def from_pillow(image: Image.Image, turn: bool = True) -> Pixels:
    """RGB pixels ``(H, W, 3)`` of an image of Pillow in any mode, turned by its EXIF data or not.

    16 bits are scaled to 8, alpha is left out.

    Raises:
        UserError: Its numbers are of unknown range.
    """
    image = upright(image) if turn else image
    if image.mode[0] in 'IF':  # 16 or more bits, which Pillow would clip
        array = np.asarray(image)
        # 32 bits that look like 16; up to 255 they may as well be 8
        fits = array.dtype.kind == 'i' and array.min() >= 0 and 255 < array.max() <= 65535
        return _from_array(array.astype(np.uint16) if fits else array)
    if image.mode == 'LA':
        canvas = Image.new('RGB', image.size, _CANVAS)
        canvas.paste(image.convert('RGB'), mask=image.getchannel('A'))
        return np.asarray(canvas)
    return np.asarray(image if image.mode == 'RGB' else image.convert('RGB'))


def _from_array(array: NDArray[Any]) -> Pixels:
    """``(H, W)`` or ``(H, W, C)``; three channels of 8 bits in the order that they have."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise UserError(
            f'an array of shape {array.shape} is no image; numpy arrays are (H, W), (H, W, 3) or '
            '(H, W, 4), tensors (H, W), (3, H, W) or (4, H, W)'
        )
    array = np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[..., :3]
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == 'u' and array.dtype.itemsize == 2:
        return np.round(array / np.float32(257)).astype(np.uint8)
    low, high = array.min(), array.max()
    if array.dtype.kind == 'f' and 0 <= low and high <= 1:
        return np.round(array * 255).astype(np.uint8)
    raise UserError(
        f'its numbers are {array.dtype} from {low} to {high}; unsigned integers of 8 or 16 bits '
        'or floats from 0 to 1 are read'
    )

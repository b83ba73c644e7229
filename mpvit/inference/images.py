"""Images in any form as one form: upright RGB arrays of 8 bits."""

import os
import shutil
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mpvit.errors import UserError
from mpvit.files.exif import upright
from mpvit.files.paths import is_video
from mpvit.inference.inputs import check_address

Pixels = NDArray[np.uint8]
_CANVAS = (124, 117, 104)  # behind grayscale images with alpha, as mmcv reads them in training
_MAX_PIXELS = 10**9  # Pillow stops at 0.18e9, which large images meant for tiles exceed
_PILLOW = threading.Lock()
_SECONDS = 60  # without an answer


def as_pixels(image: Any) -> Pixels:
    """An image in any of the forms that users have.

    Args:
        image: A file or URL; a Pillow image; a numpy array ``(H, W)`` or ``(H, W, C)`` in the order
            BGR(A) of OpenCV and mmdet; or a tensor ``(C, H, W)`` or ``(H, W)`` in the order RGB(A)
            of torchvision. Numbers are unsigned
            integers of 8 or 16 bits or floats in [0, 1].

    Returns:
        RGB, shape ``(H, W, 3)``, turned as the EXIF data say.

    Raises:
        UserError: It cannot be read or is no image.
    """
    if isinstance(image, (str, os.PathLike)):
        path = os.fspath(image)
        if is_video(path):
            raise UserError(f'{path} is a video; give it to Detector.predict')
        if '://' not in path:
            return read_image(path)
        with downloaded(path) as file:
            return read_image(file, path)
    if isinstance(image, Image.Image):
        return from_pillow(image)
    if isinstance(image, np.ndarray):
        return _from_array(image, rgb=False)
    import torch  # not at the top: files are read and drawn without it

    if isinstance(image, torch.Tensor):
        array = image.detach().cpu()
        array = array.to(torch.float32) if array.dtype == torch.bfloat16 else array
        if array.dim() == 3:
            array = array.permute(1, 2, 0)
        return _from_array(array.numpy(), rgb=True)
    raise UserError(
        f'an input is a {type(image).__name__}; give a path, a URL, a numpy array, a Pillow image '
        'or a tensor'
    )


def read_image(path: str | os.PathLike[str], name: str | None = None) -> Pixels:
    """Read an image file; of an animation or a document with several pages the first one.

    Args:
        path: File.
        name: What to call it in errors; None for the path.

    Returns:
        RGB, shape ``(H, W, 3)``, turned as the EXIF data say. Alpha is left out. 16 bits are scaled
        to 8.

    Raises:
        UserError: It cannot be read.
    """
    name = name or os.fspath(path)
    try:
        with open_image(path) as image:
            return from_pillow(image)
    except FileNotFoundError:
        reason = 'it does not exist'
    except IsADirectoryError:
        reason = 'it is a folder'
    except PermissionError:
        reason = 'no permission'
    except MemoryError:
        reason = 'it does not fit into memory'
    except Image.DecompressionBombError:
        reason = f'more than {_MAX_PIXELS:.0e} pixels'
    except UserError as error:
        reason = str(error)
    except Exception as error:  # each format has errors of its own
        empty = os.path.isfile(path) and os.path.getsize(path) == 0
        text = str(error).replace(repr(os.fspath(path)), '').strip(' :')
        kind = type(error).__name__
        reason = 'it is empty' if empty else f'truncated, or no image ({kind}: {text})'
    raise UserError(f'{name} cannot be read: {reason}')


@contextmanager
def downloaded(url: str) -> Iterator[Path]:
    """A file of the web on disk, for a while.

    Args:
        url: Its address.

    Raises:
        UserError: It cannot be had.
    """
    check_address(url)
    # what a browser accepts, such as spaces, is not an address yet
    address = quote(url, safe="%/:?=&#@!$'()*+,;[]~")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'download'
        request = urllib.request.Request(address, headers={'User-Agent': 'mpvit'})
        try:
            with (
                urllib.request.urlopen(request, timeout=_SECONDS) as answer,
                path.open('wb') as file,
            ):
                shutil.copyfileobj(answer, file)
        except (OSError, ValueError, HTTPException) as error:  # URLError is an OSError
            code = f'HTTP {error.code} ' if isinstance(error, HTTPError) else ''
            reason = getattr(error, 'reason', error) or type(error).__name__
            raise UserError(f'{url} cannot be downloaded: {code}{reason}') from error
        yield path


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Open an image file, also one that is larger than Pillow takes by itself.

    Raises:
        Exception: It cannot be read; each format has errors of its own.
    """
    with _PILLOW:  # the limit is a variable of Pillow's module; twice its value is an error
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, _MAX_PIXELS // 2
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def from_pillow(image: Image.Image, turn: bool = True) -> Pixels:
    """Pixels of an image of Pillow.

    Args:
        image: In any mode; 16 bits are scaled to 8, alpha is left out.
        turn: Turn it upright as its EXIF data say.

    Returns:
        RGB, shape ``(H, W, 3)``.

    Raises:
        UserError: Its numbers are of unknown range.
    """
    image = upright(image) if turn else image
    if image.mode[0] in 'IF':  # 16 or more bits, which Pillow would clip
        array = np.asarray(image)
        # 32 bits that look like 16; up to 255 they may as well be 8
        fits = array.dtype.kind == 'i' and array.min() >= 0 and 255 < array.max() <= 65535
        return _from_array(array.astype(np.uint16) if fits else array, rgb=True)
    if image.mode == 'LA':
        canvas = Image.new('RGB', image.size, _CANVAS)
        canvas.paste(image.convert('RGB'), mask=image.getchannel('A'))
        return np.asarray(canvas)
    return np.asarray(image if image.mode == 'RGB' else image.convert('RGB'))


def _from_array(array: NDArray[Any], *, rgb: bool) -> Pixels:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise UserError(
            f'an array of shape {array.shape} is no image; numpy arrays are (H, W), (H, W, 3) or '
            '(H, W, 4), tensors (H, W), (3, H, W) or (4, H, W)'
        )
    array = np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[..., :3]
    pixels = _eight_bits(array)
    return pixels if rgb else pixels[..., ::-1]


def _eight_bits(array: NDArray[Any]) -> Pixels:
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

"""Pictures that strangers send: content tells what they are, never names."""

import os
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mpvit.errors import UserError
from mpvit.files.exif import upright
from mpvit.inference.images import as_pixels

#: The decoders that a picture may reach. Pillow has more, some of which start other programs.
FORMATS = ('BMP', 'GIF', 'JPEG', 'PNG', 'TIFF', 'WEBP')
#: Pixels of the largest picture; a small file can claim to hold any number.
MOST_PIXELS = 50_000_000
_SHOWN = 1600  # pixels of the longer side that the page gets to see


def read_picture(path: str | os.PathLike[str], name: str | None = None) -> NDArray[np.uint8]:
    """Read a picture of which nothing is known.

    Args:
        path: File.
        name: What it is called in messages; None for the name of the file.

    Returns:
        The picture upright, as its EXIF data says, in BGR: shape ``(H, W, 3)``.

    Raises:
        UserError: It is no picture, of a kind that is not taken, damaged, or too large.
    """
    name = name or Path(path).name
    if not os.path.isfile(path):
        raise UserError(f'{name} is not there any more; choose it again')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)  # told below
            with Image.open(path, formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > MOST_PIXELS:
                    raise Image.DecompressionBombError
                return np.ascontiguousarray(as_pixels(picture)[..., ::-1])
    except Image.DecompressionBombError as error:
        most = MOST_PIXELS // 10**6
        raise UserError(f'{name} has more than {most} million pixels; make it smaller') from error
    except UserError as error:
        raise UserError(f'{name}: {error}') from error
    except Image.UnidentifiedImageError as error:
        kinds = ', '.join(FORMATS)
        raise UserError(f'{name} is not a picture of a kind that is taken: {kinds}') from error
    except (OSError, ValueError, SyntaxError, EOFError, OverflowError) as error:
        raise UserError(f'{name} is damaged or incomplete: {error}') from error


def write_shown(pixels: NDArray[np.uint8], target: str | os.PathLike[str]) -> None:
    """Write the copy that the page shows: of a kind and a size that every browser takes.

    Args:
        pixels: As from `read_picture`.
        target: WebP file.
    """
    picture = Image.fromarray(pixels[..., ::-1])
    picture.thumbnail((_SHOWN, _SHOWN))
    picture.save(target, 'WEBP', quality=90)


def thumbnail(path: str | os.PathLike[str], side: int) -> Image.Image | None:
    """A picture made small; None if it cannot be read.

    Args:
        path: File.
        side: Pixels of its longer side.
    """
    try:
        with Image.open(path, formats=FORMATS) as picture:
            picture.draft('RGB', (side, side))  # decodes a JPEG at a fraction of its size
            small = upright(picture).convert('RGB')
            small.thumbnail((side, side))
            return small
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None

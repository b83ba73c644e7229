"""Photographs as a camera stores them that was not held upright."""

from pathlib import Path
from typing import Any

from PIL import Image

#: By the orientation of EXIF: what it undoes.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def save(upright: Image.Image, path: Path, orientation: int, **settings: Any) -> None:
    """Write an image turned, with the EXIF data that have it shown upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright.transpose(STORED[orientation]).save(path, exif=exif, **settings)

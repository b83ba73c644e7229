"""Which way up a photograph is, by its EXIF data."""

from PIL import Image

_ORIENTATION = 0x0112  # the tag
# How to turn an image upright. Pillow's exif_transpose also writes the EXIF data anew, which fails
# where another of them is damaged.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation(image: Image.Image) -> int:
    """The orientation of an image: 1 is upright; with 5 to 8 width and height change places.

    Damaged EXIF data and numbers out of range count as 1, as in mmcv.
    """
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the parser raises anything on damaged data
        return 1
    return value if value in _TURNS else 1


def upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF data turn it; itself if they do not."""
    image.load()  # TIFF files are turned by that
    turn = _TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)

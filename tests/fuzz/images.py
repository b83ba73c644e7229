"""Pictures and videos as strangers send them."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from fuzz.hostile import spoil_bytes
from PIL import Image, PngImagePlugin

POSTSCRIPT = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 64 64
(canary) (w) file closefile
showpage
%%EOF
"""
Content = Callable[[random.Random], bytes]


def saved(mode: str, kind: str, size: tuple[int, int] = (64, 48), **options: object) -> Content:
    """A whole picture of an unusual kind."""

    def content(rng: random.Random) -> bytes:
        buffer = io.BytesIO()
        Image.new(mode, size).save(buffer, kind, **options)
        return buffer.getvalue()

    return content


def png(width: int, height: int, rows: int = 0) -> Content:
    """A PNG file that claims a size, and holds that many black rows of it."""

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack('>I', len(data)) + body + struct.pack('>I', zlib.crc32(body))

    head = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0))
    data = chunk(b'IDAT', zlib.compress(bytes((width + 1) * rows)))
    return lambda rng: b'\x89PNG\r\n\x1a\n' + head + data + chunk(b'IEND', b'')


def metadata(rng: random.Random) -> bytes:
    """A JPEG whose EXIF block is damaged, or says what it must not."""
    exif = Image.Exif()
    exif[0x0112] = rng.choice([0, 1, 6, 9, 65535])
    exif[0x010E] = 'x' * rng.choice([1, 60_000])
    block = bytearray(exif.tobytes())
    for _ in range(rng.choice([0, 1, 20])):
        block[rng.randrange(6, len(block))] = rng.randrange(256)
    return saved('RGB', 'JPEG', exif=bytes(block))(rng)


def text_bomb(rng: random.Random) -> bytes:
    """A PNG whose compressed text is 100 MB."""
    info = PngImagePlugin.PngInfo()
    info.add_text('comment', ' ' * 100_000_000, zip=True)
    return saved('RGB', 'PNG', pnginfo=info)(rng)


def animation(rng: random.Random) -> bytes:
    """A GIF of several pictures."""
    buffer = io.BytesIO()
    first, *others = (Image.new('P', (64, 48), index) for index in range(4))
    first.save(buffer, 'GIF', save_all=True, append_images=others)
    return buffer.getvalue()


CONTENTS: dict[str, Content] = {
    'postscript': lambda rng: POSTSCRIPT,
    'svg': lambda rng: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>',
    'text': lambda rng: b'<!doctype html><title>Sign in</title>',
    'nothing': lambda rng: b'',
    'list of files': lambda rng: b'ffconcat version 1.0\nfile ../../outside/kept.txt\n',
    'playlist': lambda rng: b'#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n',
    'huge claim': png(60_000, 60_000),
    'huge': png(20_000, 20_000, 20_000),
    'large': png(13_000, 13_000, 13_000),
    'narrow': png(20_000, 10, 10),
    'one pixel': png(1, 1, 1),
    'no pixel': png(0, 0),
    'metadata': metadata,
    'text bomb': text_bomb,
    'animation': animation,
    'grey': saved('L', 'PNG'),
    'one bit': saved('1', 'PNG'),
    'palette': saved('P', 'PNG', transparency=0),
    'alpha': saved('RGBA', 'PNG'),
    '16 bits': saved('I;16', 'PNG'),
    'floats': saved('F', 'TIFF'),
    'inks': saved('CMYK', 'JPEG'),
    'icon': saved('RGBA', 'ICO'),
    'profile': saved('RGB', 'JPEG', icc_profile=b'\xff' * 3000),
    'bitmap': saved('RGB', 'BMP', (33, 1)),
    'jpeg 2000': saved('RGB', 'JPEG2000'),
}


def spoil_picture(rng: random.Random, path: Path) -> None:
    """Damage a picture, or put another content under its name."""
    if rng.random() < 0.3:
        spoil_bytes(rng, path)
    else:
        path.write_bytes(CONTENTS[rng.choice(sorted(CONTENTS))](rng))

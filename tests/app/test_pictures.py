import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mpvit.app.actions import _small, read_picture
from mpvit.errors import UserError


@pytest.fixture(scope='module')
def picture():
    rows, columns = np.mgrid[:48, :64]
    return Image.fromarray(np.stack([4 * columns, 5 * rows, columns + rows], -1).astype(np.uint8))


@pytest.mark.parametrize('kind', ['PNG', 'BMP', 'TIFF', 'WEBP'])
def test_name_says_nothing(picture, tmp_path, kind):
    picture.save(tmp_path / 'photo.txt', kind, **(dict(lossless=True) if kind == 'WEBP' else {}))
    np.testing.assert_array_equal(read_picture(tmp_path / 'photo.txt'), picture)


def bomb():
    """A PNG of a hundred bytes that claims to be 100000 pixels wide and high."""

    def chunk(kind, data):
        crc = zlib.crc32(kind + data)
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', crc)

    header = struct.pack('>IIBBBBB', 100_000, 100_000, 8, 2, 0, 0, 0)
    data = zlib.compress(b'')
    return (
        b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', data) + chunk(b'IEND', b'')
    )


def as_bytes(picture, kind):
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (lambda _: b'', 'empty'),
        (lambda _: b'text\n', 'no image of the kinds'),
        (lambda _: b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'no image of the kinds'),
        (
            lambda picture: as_bytes(picture, 'EPS'),
            'no image of the kinds',
        ),  # would start Ghostscript
        (lambda picture: as_bytes(picture, 'JPEG')[:400], 'damaged or incomplete'),
        (lambda picture: as_bytes(picture, 'PNG')[:100], 'damaged or incomplete'),
        (lambda _: bomb(), 'more than 50,000,000'),
    ],
    ids=['empty', 'text', 'SVG', 'EPS', 'half a JPEG', 'half a PNG', 'bomb'],
)
def test_what_is_no_picture_is_refused(picture, tmp_path, content, message):
    path = tmp_path / 'photo.png'
    path.write_bytes(content(picture))
    with pytest.raises(UserError, match=rf'^photo\.png .*{message}'):
        read_picture(path)


def test_picture_that_is_gone_is_told(tmp_path):
    with pytest.raises(UserError, match=r'^x\.png .*No such file'):
        read_picture(tmp_path / 'x.png')


def test_large_pictures_become_smaller_copies():
    large = Image.new('RGB', (4000, 100))
    assert _small(large, 1600).size == (1600, 40)
    assert large.size == (4000, 100)

"""Images in all forms become the same pixels."""

import http.client
import struct
import urllib.request
import warnings

import numpy as np
import pytest
import torch
import turned
from mmcv import imread
from PIL import Image, ImageOps
from torchvision.transforms.functional import pil_to_tensor, to_tensor

from mpvit.errors import UserError
from mpvit.inference.images import as_pixels, read_image
from mpvit.inference.inputs import place_of


@pytest.fixture(scope='module')
def image():
    """A colour image, 40 wide and 30 high, with no symmetry."""
    numbers = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return Image.fromarray(numbers)


@pytest.fixture(scope='module')
def gray(image):
    """Its grayscale version as RGB numbers."""
    return np.repeat(np.asarray(image.convert('L'))[..., None], 3, axis=2)


@pytest.mark.parametrize('suffix', ['png', 'bmp', 'tiff', 'webp', 'ppm'])
def test_lossless_files(image, tmp_path, suffix):
    options = dict(lossless=True) if suffix == 'webp' else {}
    image.save(tmp_path / f'a.{suffix}', **options)
    assert (read_image(tmp_path / f'a.{suffix}') == np.asarray(image)).all()


@pytest.mark.parametrize('kind', ['jpg', 'cmyk.jpg', 'gray.jpg', 'gif', 'LA.png', 'palette.png'])
def test_other_files_are_read_as_in_training(image, tmp_path, kind):
    mode = {'cmyk.jpg': 'CMYK', 'gray.jpg': 'L', 'gif': 'P', 'LA.png': 'LA', 'palette.png': 'P'}
    converted = image.convert(mode.get(kind, 'RGB'))
    if kind == 'LA.png':
        converted.putalpha(Image.fromarray(np.asarray(image)[..., 0]))
    converted.save(tmp_path / f'a.{kind}')
    read = imread(str(tmp_path / f'a.{kind}'), 'color_ignore_orientation', 'rgb', 'pillow')
    assert (read_image(tmp_path / f'a.{kind}') == read).all()
    assert read.std() > 20


def test_alpha_is_left_out(image, tmp_path):
    clear = image.copy()
    clear.putalpha(0)
    clear.save(tmp_path / 'a.png')
    assert (read_image(tmp_path / 'a.png') == np.asarray(image)).all()


def test_animations_and_documents_give_their_first_image(image, tmp_path):
    for name in ('a.gif', 'a.tiff'):
        second = ImageOps.invert(image)
        image.save(tmp_path / name, save_all=True, append_images=[second])
        image.save(tmp_path / f'one_{name}')
        assert (read_image(tmp_path / name) == read_image(tmp_path / f'one_{name}')).all()


@pytest.mark.parametrize('orientation', turned.STORED)
@pytest.mark.parametrize('suffix', ['png', 'jpg', 'webp', 'tiff'])
def test_exif_turns_the_image_as_it_is_shown(image, tmp_path, orientation, suffix):
    options = dict(lossless=True) if suffix == 'webp' else dict(quality=100, subsampling=0)
    turned.save(image, tmp_path / f'a.{suffix}', orientation, **options)
    read = read_image(tmp_path / f'a.{suffix}')
    assert read.shape == (30, 40, 3)
    difference = np.abs(read.astype(int) - np.asarray(image)).max()
    assert difference <= (25 if suffix == 'jpg' else 0)  # noise is the worst there is for JPEG


@pytest.mark.filterwarnings('ignore:Corrupt EXIF data')
def test_damaged_exif_data_are_left_alone(image, tmp_path):
    image.save(tmp_path / 'plain.jpg')
    expected = read_image(tmp_path / 'plain.jpg')
    for damaged in (b'nonsense', b'', b'MM\0*\0\0\0\xff', b'II*\0\x08\0\0\0\xff'):
        image.save(tmp_path / 'a.jpg', exif=b'Exif\0\0' + damaged)
        assert (read_image(tmp_path / 'a.jpg') == expected).all()
    # the orientation is whole, the width is a number of a wrong kind
    fields = [(0x0112, 3, 1, 6), (0x0100, 12, 1, 0)]
    table = b''.join(struct.pack('<HHII', *field) for field in fields)
    exif = b'Exif\0\0II*\0' + struct.pack('<IH', 8, 2) + table + bytes(12)
    image.save(tmp_path / 'a.jpg', exif=exif)
    assert (read_image(tmp_path / 'a.jpg') == np.rot90(expected, -1)).all()


def test_an_image_of_the_user_stays_as_it_is(image, tmp_path):
    turned.save(image, tmp_path / 'a.png', 6)
    given = Image.open(tmp_path / 'a.png')
    for _ in range(2):
        assert as_pixels(given).shape == (30, 40, 3)
        assert given.size == (30, 40)


def test_sixteen_bits_are_scaled(gray, tmp_path):
    deep = gray[..., 0].astype(np.uint16) * 257
    for name in ('a.png', 'a.tiff'):
        Image.fromarray(deep).save(tmp_path / name)
        assert (read_image(tmp_path / name) == gray).all()
    Image.fromarray(deep.astype(np.int32)).save(tmp_path / 'b.tiff')
    assert (read_image(tmp_path / 'b.tiff') == gray).all()
    clipped = imread(str(tmp_path / 'a.tiff'), 'color', 'rgb', 'pillow')
    assert (clipped == 255).mean() > 0.9  # what happens otherwise


def test_numbers_of_unknown_range_are_refused(gray, tmp_path):
    Image.fromarray(gray[..., 0].astype(np.int32)).save(tmp_path / 'a.tif')  # 0 to 255
    with pytest.raises(UserError, match='its numbers are int32 from'):
        read_image(tmp_path / 'a.tif')


def test_sixteen_bits_in_colour(image, tmp_path):
    import cv2

    deep = np.asarray(image)[..., ::-1].astype(np.uint16) * 257
    for name in ('a.png', 'a.tiff'):
        cv2.imwrite(str(tmp_path / name), deep)
        assert (read_image(tmp_path / name) == np.asarray(image)).all()


def test_arrays_and_tensors(image, gray):
    rgb = np.asarray(image)
    for given in (
        image,
        rgb[..., ::-1],
        np.dstack([rgb[..., ::-1], rgb[..., 0]]),
        rgb[..., ::-1].astype(np.uint16) * 257,
        rgb[..., ::-1] / 255,
        pil_to_tensor(image),
        to_tensor(image),
        to_tensor(image).double().requires_grad_(),
        to_tensor(image).half(),
    ):
        assert (as_pixels(given) == rgb).all()
    rounded = as_pixels(to_tensor(image).bfloat16())
    assert np.abs(rounded.astype(int) - rgb).max() <= 1  # bfloat16 has 8 bits
    for given in (gray[..., 0], gray[..., :1], torch.from_numpy(gray[..., 0])):
        assert (as_pixels(given) == gray).all()


def test_large_images_are_for_tiles(monkeypatch, image, tmp_path):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)  # of Pillow's, as if the image were large
    image.save(tmp_path / 'a.png')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert read_image(tmp_path / 'a.png').shape == (30, 40, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'', 'empty'),
        (b'no image', 'no image'),
        (None, 'No such file'),
        ('half', 'damaged'),
    ],
)
def test_files_that_cannot_be_read(image, tmp_path, content, reason):
    path = tmp_path / 'a.jpg'
    if content == 'half':
        image.save(path)
        content = path.read_bytes()[:-700]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f'a.jpg .*{reason}') as raised:
        read_image(path)
    assert str(raised.value).count(str(path)) == 1


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (np.zeros((2, 3, 30, 40), np.uint8), r'shape \(2, 3, 30, 40\) is no image'),
        (np.zeros((3, 30, 40), np.uint8), r'shape \(3, 30, 40\) is no image'),
        (np.zeros((0, 40, 3), np.uint8), r'shape \(0, 40, 3\) is no image'),
        (np.full((30, 40, 3), 255.0), 'numbers are float64 from 255.0 to 255.0'),
        (np.full((30, 40, 3), np.nan), 'numbers are float64 from nan'),
        (np.zeros((30, 40, 3), int), 'numbers are int64'),
        (torch.zeros(30, 40, 3), r'shape \(40, 3, 30\) is no image'),
        (7, 'int'),
        ('clip.mp4', 'clip.mp4 .*Detector.predict'),
        ('.', 'folder'),
    ],
)
def test_what_is_no_image(given, message):
    with pytest.raises(UserError, match=message):
        as_pixels(given)


def test_addresses_as_a_browser_takes_them(monkeypatch):
    asked = []

    def answer(self, request, timeout):
        asked.append(request.full_url)
        raise http.client.BadStatusLine('nonsense')

    monkeypatch.setattr(urllib.request.OpenerDirector, 'open', answer)
    for url in (
        'http://a.org/a b.jpg',
        'http://a.org/a%20b.jpg?x=1&y=2',
        'http://a.org/\u00fc.jpg',
    ):
        with pytest.raises(UserError, match='jpg.*nonsense'):
            with place_of(url).file():
                pass
    assert asked == [
        'http://a.org/a%20b.jpg',
        'http://a.org/a%20b.jpg?x=1&y=2',
        'http://a.org/%C3%BC.jpg',
    ]

"""Files that would hang a reader, start a program or fill the memory, through light readers."""

import ast
import io
import json
import os
import socket
import tempfile
from pathlib import Path

import pytest
from PIL import Image, UnidentifiedImageError

from mpvit.checkpoints.reading import read
from mpvit.datasets.annotations import read_annotations
from mpvit.datasets.check.image_files import read_facts
from mpvit.datasets.layout import scan
from mpvit.errors import UserError
from mpvit.evaluation.result_files import read_results
from mpvit.files import untrusted
from mpvit.files.untrusted import (
    FORMATS,
    check_regular,
    open_image,
    open_untrusted,
    parse_yaml,
    read_untrusted,
    walk,
)
from mpvit.inference.images import read_image
from mpvit.inference.video import frames

POSTSCRIPT = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n'

LIMIT = 10_000


def pipe(path):
    os.mkfifo(path)


def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(path))


def huge(path):
    with path.open('wb') as file:
        file.truncate(2 * LIMIT)


KINDS = {
    'pipe': (pipe, 'a named pipe'),
    'socket': (unix_socket, 'a socket'),
    'device': (lambda path: path.symlink_to('/dev/zero'), 'a device'),
    'folder': (Path.mkdir, 'a folder'),
    'huge': (huge, 'more than .* bytes; MPVIT_MAX_BYTES'),
}


def detections(path):
    ann_file = path.with_name('truth.json')
    content = dict(images=[dict(id=1, file_name='a.jpg', width=9, height=9)], annotations=[])
    ann_file.write_text(json.dumps(content | dict(categories=[dict(id=1, name='a')])))
    return read_results(ann_file, path, '')


READERS = {
    'untrusted': ('x', lambda path: read_untrusted(path, 100)),
    'check': ('x', lambda path: check_regular(path, 100)),
    'image': ('x.jpg', read_image),
    'video': ('x.mp4', lambda path: next(frames(path))),
    'annotations': ('x.json', read_annotations),
    'detections': ('d.json', detections),
    'checkpoint': ('x.pth', read),
}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('reader', READERS)
def test_only_regular_files_of_limited_size_are_opened(reader, kind, monkeypatch):
    (name, call), (make, reason) = READERS[reader], KINDS[kind]
    monkeypatch.setenv('MPVIT_MAX_BYTES', str(LIMIT))
    with tempfile.TemporaryDirectory() as folder:  # short enough for the name of a socket
        make(Path(folder, name))
        with pytest.raises((OSError, UserError), match=reason) as caught:
            call(Path(folder, name))
        assert name in str(caught.value)


@pytest.mark.parametrize('kind', KINDS)
def test_the_checker_says_what_a_file_is(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('MPVIT_MAX_BYTES', str(LIMIT))
    make, reason = KINDS[kind]
    make(Path('x.jpg'))
    with pytest.raises(AssertionError, match=reason):
        assert not read_facts('x.jpg').fault


def test_a_file_that_is_exchanged_while_it_is_opened(tmp_path, monkeypatch):
    """What was opened counts, not what was looked at before."""
    pipe(tmp_path / 'x')
    monkeypatch.setattr(untrusted, 'check_regular', lambda *arguments: None)
    with pytest.raises(OSError, match='a named pipe'):
        open_untrusted(tmp_path / 'x', 100)


def test_odd_names(tmp_path):
    for name in ('a\0b', 'x' * 300, 'none'):
        with pytest.raises(OSError, match='null|long|No such file'):
            open_untrusted(tmp_path / name, 100)


def test_limits_and_how_to_raise_them(tmp_path, monkeypatch):
    (tmp_path / 'x').write_bytes(b'12345')
    assert read_untrusted(tmp_path / 'x', 5) == b'12345'
    with pytest.raises(OSError, match='more than 4 bytes; MPVIT_MAX_BYTES'):
        read_untrusted(tmp_path / 'x', 4)
    monkeypatch.setenv('MPVIT_MAX_BYTES', '1e9')
    assert read_untrusted(tmp_path / 'x', 4) == b'12345'
    for text in ('-1', 'many', 'nan', 'inf', '0'):
        monkeypatch.setenv('MPVIT_MAX_BYTES', text)
        with pytest.raises(UserError, match=f'MPVIT_MAX_BYTES={text} is no positive number'):
            read_untrusted(tmp_path / 'x', 4)


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A program of that name, and the file that it writes when it is started."""
    program = tmp_path / 'bin' / 'gs'
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ntouch {tmp_path}/started\necho 10\n')
    program.chmod(0o755)
    monkeypatch.setenv('PATH', f'{program.parent}:{os.environ["PATH"]}')
    monkeypatch.setattr('PIL.EpsImagePlugin.gs_binary', None)  # as after the import
    return tmp_path / 'started'


def test_an_image_starts_no_program(ghostscript, tmp_path):
    path = tmp_path / 'photo.jpg'
    path.write_bytes(POSTSCRIPT)
    with pytest.raises(UserError, match='photo.jpg cannot be read: it is no image of the kinds'):
        read_image(path)
    assert 'no image of the kinds JPEG' in read_facts(str(path)).fault
    assert not ghostscript.exists()
    with Image.open(path) as image, pytest.raises(OSError, match='cannot identify'):
        image.load()
    assert ghostscript.exists()  # it would have


def encoded(kind, size=(8, 6)):
    buffer = io.BytesIO()
    Image.new('RGB', size).save(buffer, kind)
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize('kind', FORMATS)
def test_formats_that_are_read(kind, tmp_path):
    with open_image(encoded(kind)) as image:
        assert image.size == (8, 6)
    (tmp_path / 'any.name').write_bytes(encoded(kind).getvalue())
    assert read_facts(str(tmp_path / 'any.name')).size == (8, 6)


@pytest.mark.parametrize('kind', ['EPS', 'ICO', 'TGA', 'PDF', 'ICNS', 'PCX'])
def test_formats_that_are_not(kind):
    with pytest.raises(UnidentifiedImageError, match='kinds JPEG'), open_image(encoded(kind)):
        pass


def test_pixels(monkeypatch, tmp_path):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)  # our limit counts, not Pillow's
    with open_image(encoded('PNG', (60, 50))):
        assert Image.MAX_IMAGE_PIXELS == 10
    monkeypatch.setenv('MPVIT_MAX_PIXELS', '2999')
    reason = '60 x 50 pixels, more than 2,999; MPVIT_MAX_PIXELS'
    with pytest.raises(OSError, match=reason), open_image(encoded('PNG', (60, 50))):
        pass
    (tmp_path / 'a.png').write_bytes(encoded('PNG', (60, 50)).getvalue())
    assert reason in read_facts(str(tmp_path / 'a.png')).fault
    monkeypatch.delenv('MPVIT_MAX_PIXELS')
    with open_image(encoded('PNG', (60, 50)), most_pixels=3000) as image:
        assert image.width == 60
    with pytest.raises(OSError, match='more'), open_image(encoded('PNG'), most_pixels=47):
        pass


def with_scans(count, size=(16, 16)):
    """A progressive JPEG whose last scan is repeated."""
    buffer = io.BytesIO()
    Image.new('L', size, 90).save(buffer, 'JPEG', progressive=True)
    data = buffer.getvalue()
    start, end = data.rindex(b'\xff\xda'), data.rindex(b'\xff\xd9')
    return data[:start] + data[start:end] * (count - data[:start].count(b'\xff\xda')) + data[end:]


def test_a_jpeg_of_many_scans(tmp_path, monkeypatch):
    """Each takes as long as a whole image, and 20,000 fit into 4 MB."""
    monkeypatch.setattr(untrusted, '_PIECE', 7)  # a marker may lie on either side of an end
    path = tmp_path / 'a.jpg'
    path.write_bytes(with_scans(500))
    assert not read_facts(str(path)).fault
    with open_image(path) as image:
        assert image.convert('L').getpixel((3, 3)) == 90
    path.write_bytes(with_scans(501))
    reason = 'a JPEG with more than 500 scans'
    assert reason in read_facts(str(path)).fault
    with pytest.raises(UserError, match=f'a.jpg cannot be read: .*{reason}') as caught:
        read_image(path)
    assert '\n' not in str(caught.value)
    formats = untrusted.PAGE_FORMATS
    with pytest.raises(OSError, match=reason), open_image(path.open('rb'), formats):
        pass


def test_yaml():
    assert parse_yaml('names: &n [a, b]\nother: *n') == {'names': ['a', 'b'], 'other': ['a', 'b']}
    assert parse_yaml(b'# nothing') is None


BOMB = 'a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n' + '\n'.join(
    f'a{n}: &a{n} [{", ".join([f"*a{n - 1}"] * 10)}]' for n in range(1, 9)
)


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        (BOMB, 'more than 1,000,000 values'),
        ('&a [*a]', 'contains itself'),
        ('[' * 100_000, 'too deeply'),
        ('{a: ' * 100_000, 'too deeply'),
        ('x' * (2**20 + 1), 'bytes'),
        (f'a: {"1:" * 5000}1', 'digits'),
        ('a: !!int ""', 'no YAML'),
        ('!!python/object/apply:eval ["1"]', 'could not determine a constructor'),
        ('a: [', 'no YAML'),
    ],
)
def test_yaml_that_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        parse_yaml(text)
    assert len(str(caught.value)) < 400


def test_the_limit_that_is_named_is_the_one_that_holds(monkeypatch):
    monkeypatch.setenv('MPVIT_MAX_BYTES', '1234')
    with pytest.raises(ValueError, match='more than 1,234 bytes'):
        parse_yaml('x' * 2000)


def test_folders_are_walked_in_order_and_loops_end(tmp_path):
    for name in ('b/z', 'b/y', 'a/x', '.hidden/w', 'v'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ('one', 'two', 'b/three'):
        (tmp_path / name).symlink_to(tmp_path)
    found = [(folder.name, files) for folder, files in walk(tmp_path)]
    assert found == [(tmp_path.name, ['v']), ('a', ['x']), ('b', ['y', 'z'])]
    folders, _ = scan(tmp_path)
    assert folders == [tmp_path, tmp_path / 'a', tmp_path / 'b']


def test_a_folder_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match='folder .*none cannot be read: No such file'):
        list(walk(tmp_path / 'none'))
    errors = []
    assert list(walk(tmp_path / 'none', errors.append)) == []
    assert [type(error) for error in errors] == [FileNotFoundError]


READING = {'read_text', 'read_bytes', 'imread', 'imdecode', 'VideoCapture', 'urlopen', 'safe_load'}
READING |= {'yaml.load', 'Image.open', 'av.open', 'np.load'}
# What reads otherwise, and which files: of the package, the system, or a run of the user's own.
OTHERWISE = {
    'app/page.py': 'of the package',
    'checkpoints/published.py': 'of the package',
    'cli/_builds.py': 'of the package',
    'cli/_main.py': 'of the package',
    'cli/configs.py': 'of the package',
    'datasets/check/problems.py': 'of the package',
    'datasets/toy.py': 'photographs of scikit-image; what it wrote itself',
    'datasets/trees.py': 'out of a wheel with a known checksum; what it wrote itself',
    'engine/run_folder.py': 'of the system',
    'export/files.py': 'a checkpoint that has been read',
    'export/tensorrt.py': 'what it wrote itself',
    'files/locks.py': 'what it wrote itself',
    'files/untrusted.py': 'the one way in',
    'inference/live.py': 'cameras and streams',
    'inference/video.py': 'opened before; and written',
    'model_info/measure.py': 'what it wrote itself; of the system',
    'ops/msda/cuda.py': 'what it wrote itself',
    'ops/msda/selection.py': 'what it wrote itself',
    'processors.py': 'of the system',
}


def test_nothing_else_opens_files(root):
    """A reader of files that a user has from elsewhere goes through `mpvit.files.untrusted`."""
    package = root / 'mpvit'
    found = set()
    for path in package.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                name = ast.unparse(node.func)
                if name.rpartition('.')[2] in READING or any(map(name.endswith, READING)):
                    found.add(path.relative_to(package).as_posix())
    assert found - set(OTHERWISE) == set()

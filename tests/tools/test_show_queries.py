"""The picture of sampling points, and what mistakes print."""

import pytest
import torch
from PIL import Image

from mpvit.errors import UserError
from mpvit.visualization import queries as sampling_points
from mpvit.visualization.queries import show_queries


@pytest.fixture
def picture(toy):
    return sorted((toy / 'val2017').iterdir())[0]


def test_picture_is_written_once(tool, tiny, trained, picture, tmp_path):
    target = tmp_path / 'new' / 'queries.png'
    arguments = (tiny[0], trained / 'epoch_2.pth', picture, '--out', target, '--top', 3)
    result = tool('show_queries', *arguments, '--layer', 0)
    assert result.status == 0, result.err
    assert result.out.strip().splitlines()[-1].startswith(f'{target}: ')
    assert min(Image.open(target).size) > 300
    result = tool('show_queries', *arguments)
    assert result.status == 1
    assert result.err == f'error: {target} exists already; choose another name\n'


@pytest.mark.parametrize(
    ('words', 'status', 'message'),
    [
        (['--out', 'a.gif'], 1, 'a.gif: a picture ends in .png, .jpg, '),
        (['--out', 'a.png', '--top', '0'], 2, '--top must be from 1 to 50'),
        (['--out', 'a.png', '--device', 'cuda:7'], 1, 'device cuda:7 is not to be had here ('),
        (['--out', 'a.png', '--device', 'foo'], 1, 'device foo is not to be had here ('),
        (['--out', 'a.png', '--layer', '2'], 1, 'layer 2: the decoder has layers 0 to 1'),
    ],
)
def test_mistakes(tool, tiny, trained, picture, words, status, message):
    result = tool('show_queries', tiny[0], trained / 'epoch_2.pth', picture, *words)
    assert result.status == status
    assert message in result.err
    assert 'Traceback' not in result.err


def test_missing_image(tool, tiny, trained, toy):
    missing = toy / 'none.png'
    result = tool('show_queries', tiny[0], trained / 'epoch_2.pth', missing, '--out', 'a.png')
    assert result.err == f'error: image {missing} not found\n'


def test_full_memory_is_one_line(tiny, trained, picture, tmp_path, monkeypatch):
    def allocate(*arguments):
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has')

    monkeypatch.setattr(sampling_points, 'record', allocate)
    with pytest.raises(UserError, match=r'no room for 20.00 MiB\): use a smaller image, or'):
        show_queries(tiny[0], trained / 'epoch_2.pth', picture, tmp_path / 'a.png', device='cpu')

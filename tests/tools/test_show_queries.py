"""The picture of sampling points, and what mistakes print."""

import pytest
from PIL import Image


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

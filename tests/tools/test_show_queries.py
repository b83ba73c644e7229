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


def test_picture_is_written_once(tool, refused, tiny, trained, picture, tmp_path):
    target = tmp_path / 'new' / 'queries.png'
    arguments = (tiny[0], trained / 'epoch_2.pth', picture, '--out', target, '--top', 3)
    result = tool('show_queries', *arguments, '--layer', 0)
    assert result.out.strip().splitlines()[-1].startswith(f'{target}: ')
    assert min(Image.open(target).size) > 300
    refused('show_queries', *arguments, says=[str(target)])


def test_full_memory_is_one_line(tiny, trained, picture, tmp_path, monkeypatch):
    def allocate(*arguments):
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has')

    monkeypatch.setattr(sampling_points, 'record', allocate)
    with pytest.raises(UserError, match='20.00 MiB.*smaller'):
        show_queries(tiny[0], trained / 'epoch_2.pth', picture, tmp_path / 'a.png', device='cpu')

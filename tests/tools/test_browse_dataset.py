"""The tool that draws contact sheets, on the config's data and on a folder of the user's own."""

import shutil

import pytest
from PIL import Image


def test_a_folder_of_ones_own(tool, toy, tmp_path):
    out = tmp_path / 'new' / 'sheets'
    arguments = ('configs/deformable_detr/mpvit_s_ddetr_50e.py', '--data', toy, '--out', out)
    result = tool('browse_dataset', *arguments, '--count', 1, '--draws', 2, '--split', 'val')
    assert result.status == 0, result.err
    assert result.out.splitlines()[-1] == str(out / 'val_01.png')
    assert Image.open(out / 'val_01.png').width > 900  # three pictures side by side
    result = tool('browse_dataset', *arguments, '--split', 'val')
    assert result.status == 1
    assert result.err == (
        f'error: {out}/val_01.png exists already; choose another folder with --out\n'
    )


@pytest.mark.parametrize(
    ('words', 'status', 'message'),
    [
        (['--count', '0'], 1, '--count 0: choose from 1 to 1000'),
        (['--draws', '9'], 2, '--draws must be from 1 to 8'),
        (['--seed', '-1'], 2, '--seed must be 0 or more'),
        (['--data', 'nowhere'], 1, 'folder nowhere not found'),
        (['--classes', 'sqare'], 1, "did you mean 'square'"),
        (['--out', 'README.md'], 1, 'README.md is a file; name a folder with --out'),
    ],
)
def test_mistakes(tool, tiny, tmp_path, words, status, message):
    arguments = (tiny[0], '--out', tmp_path / 'sheets', *words)
    result = tool('browse_dataset', *arguments, '--cfg-options', *tiny[1])
    assert result.status == status
    assert message in result.err
    assert 'Traceback' not in result.err
    assert not (tmp_path / 'sheets').exists()


def test_an_image_that_cannot_be_read_is_named(tool, toy, tmp_path):
    data = tmp_path / 'data'
    shutil.copytree(toy, data)
    for path in (data / 'train2017').iterdir():
        path.write_bytes(b'no image')
    arguments = ('configs/deformable_detr/mpvit_t_ddetr_toy.py', '--data', data)
    result = tool('browse_dataset', *arguments, '--out', tmp_path / 'sheets')
    assert result.status == 1
    assert 'check_dataset.py' in result.err
    assert 'Traceback' not in result.err

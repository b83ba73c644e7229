"""The tool that draws contact sheets, on the config's data and on a folder of the user's own."""

import shutil

from PIL import Image


def test_a_folder_of_ones_own(tool, refused, toy, tmp_path):
    out = tmp_path / 'new' / 'sheets'
    arguments = ('configs/deformable_detr/mpvit_s_ddetr_50e.py', '--data', toy, '--out', out)
    result = tool('browse_dataset', *arguments, '--count', 1, '--draws', 2, '--split', 'val')
    assert result.out.splitlines()[-1] == str(out / 'val_01.png')
    assert Image.open(out / 'val_01.png').width > 900  # three pictures side by side
    refused('browse_dataset', *arguments, '--split', 'val', says=[f'{out}/val_01.png'])


def test_an_image_that_cannot_be_read_is_named(refused, toy, tmp_path):
    data = tmp_path / 'data'
    shutil.copytree(toy, data)
    for path in (data / 'train2017').iterdir():
        path.write_bytes(b'no image')
    arguments = ('configs/deformable_detr/mpvit_t_ddetr_toy.py', '--data', data)
    out = ('--out', tmp_path / 'sheets')
    refused('browse_dataset', *arguments, *out, says=['check_dataset'])

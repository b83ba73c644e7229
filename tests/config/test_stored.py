"""The config that a checkpoint carries: read as data, whatever it says."""

import pytest
import torch
from mmengine.config import Config

from mpvit.config.reading import load_config
from mpvit.config.stored import stored_config
from mpvit.errors import UserError


def checkpoint(folder, text, name='epoch_1.pth'):
    torch.save({'state_dict': {}, 'meta': {'cfg': text}}, folder / name)
    return folder / name


@pytest.mark.parametrize('name', ['mpvit_s_ddetr_50e', 'mpvit_t_ddetr_toy', 'r50_dino_12e'])
def test_every_entry_of_a_written_config_comes_back(name, tmp_path):
    config = load_config(name)
    config.dump(tmp_path / 'config.py')
    found = stored_config(checkpoint(tmp_path, (tmp_path / 'config.py').read_text()))
    written = Config.fromfile(tmp_path / 'config.py', import_custom_modules=False)
    expected = dict(written.to_dict(), work_dir=str(tmp_path), load_from=None, resume=False)
    assert found.to_dict() == expected


def test_the_config_inside_goes_before_the_one_beside(tmp_path):
    (tmp_path / 'other.py').write_text('a = 2')
    assert stored_config(checkpoint(tmp_path, 'a = 1')).a == 1
    (tmp_path / 'model.onnx').write_bytes(b'')
    found = stored_config(tmp_path / 'model.onnx')  # which holds none
    assert (found.a, found.work_dir) == (2, str(tmp_path))


def test_alone_it_writes_where_a_config_of_its_name_would(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'x').mkdir()
    path = checkpoint(tmp_path / 'x', 'a = 1', 'best.pth')
    assert load_config(path).work_dir == 'work_dirs/best'


def test_no_config_at_all(tmp_path):
    torch.save({'model': {}}, tmp_path / 'official.pth')
    with pytest.raises(UserError, match='name the config first'):
        stored_config(tmp_path / 'official.pth')


@pytest.mark.parametrize(('text', 'words'), [
    ("import os\nos.system('touch executed')", 'line 1 is more than'),
    ("a = __import__('os').system('touch executed')", 'malformed node'),
    ("a = open('executed', 'w')", 'malformed node'),
    ("a = dict(type='os.system', command='touch executed')", "type 'os.system'"),
    ("a = [dict(b=dict(type='mmengine.utils.subprocess.call'))]", 'no name in a registry'),
    ("custom_imports = dict(imports=['evil'])", 'imports the module evil'),
    ("custom_imports = dict(imports='evil')", 'imports the module evil'),
    ("default_scope = 'evil'", "scope 'evil'"),
    ('a = (', 'never closed'),
    ('a = ' + '[' * 500 + ']' * 500, 'too many'),
])  # fmt: skip
def test_nothing_in_it_is_executed(text, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words) as caught:
        load_config(checkpoint(tmp_path, text))
    assert 'name the config first' in str(caught.value)
    assert not (tmp_path / 'executed').exists()

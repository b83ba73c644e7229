"""The config that a checkpoint carries: read as data, whatever it says."""

import pytest
import torch
from mmengine.config import Config

from mpvit.config.names import shipped_configs
from mpvit.config.reading import load_config
from mpvit.config.stored import stored_config
from mpvit.errors import UserError

ONE = 'a = 1\nmodel = dict(x=-inf)\n'


def checkpoint(folder, text, name='epoch_1.pth'):
    torch.save({'state_dict': {}, 'meta': {'cfg': text}}, folder / name)
    return folder / name


@pytest.mark.parametrize('name', shipped_configs())
def test_every_entry_of_a_written_config_comes_back(name, tmp_path):
    config = load_config(name)
    config.dump(tmp_path / 'config.py')
    found = stored_config(checkpoint(tmp_path, (tmp_path / 'config.py').read_text()))
    written = Config.fromfile(tmp_path / 'config.py', import_custom_modules=False)
    expected = dict(written.to_dict(), work_dir=str(tmp_path), load_from=None, resume=False)
    assert found.to_dict() == expected


def test_it_does_not_say_where_to_write(tmp_path):
    places = "hooks = [dict(out_dir='/etc', a=dict(save_dir='/etc', b=1))]\n"
    assert stored_config(checkpoint(tmp_path, ONE + places)).hooks == [dict(a=dict(b=1))]


def test_the_config_inside_goes_before_the_one_beside(tmp_path):
    (tmp_path / 'other.py').write_text(ONE.replace('1', '2'))
    assert stored_config(checkpoint(tmp_path, ONE)).a == 1
    (tmp_path / 'model.onnx').write_bytes(b'')
    found = stored_config(tmp_path / 'model.onnx')  # which holds none
    assert (found.a, found.work_dir) == (2, str(tmp_path))


def test_alone_it_writes_where_a_config_of_its_name_would(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'x').mkdir()
    path = checkpoint(tmp_path / 'x', ONE, 'best.pth')
    assert load_config(path).work_dir == 'work_dirs/best'


def test_no_config_at_all(tmp_path):
    torch.save({'model': {}}, tmp_path / 'official.pth')
    with pytest.raises(UserError, match='name the config first'):
        stored_config(tmp_path / 'official.pth')


@pytest.mark.parametrize(('text', 'words'), [
    ("import os\nos.system('touch executed')", 'line 1 is more than'),
    ("a = __import__('os').system('touch executed')", 'malformed node'),
    ("a = open('executed', 'w')", 'malformed node'),
    ("a = dict(type='os.system', command='touch executed')", "names 'os.system'"),
    ("a = [dict(b=dict(type='mmengine.call_command', cmd=['touch', 'executed']))]", 'harmless'),
    ("a = dict(nms=dict(type='__import__(\"os\").system(\"touch executed\")'))", 'harmless'),
    ("a = dict(type='antigravity')", 'harmless'),
    ("a = dict(constructor='evil.X')", 'harmless'),
    ("custom_imports = dict(imports=['mpvit.__main__'])", 'which is code'),
    ("custom_imports = dict(imports=['evil'])", 'imports the module evil'),
    ("custom_imports = dict(imports='evil')", 'imports the module evil'),
    ("default_scope = 'evil'", "scope 'evil'"),
    ('a = (', 'never closed'),
    ('a = {[1]}', 'unhashable'),
    ('a = ' + '-' * 50000 + '1', '(MemoryError|RecursionError|too)'),
    ('a = 1', 'model'),
    ('a = b = 1', 'more than a name'),
    ('a = dict(**dict(b=1))', 'unpacked'),
    ('a = ' + '[' * 500 + ']' * 500, 'too many'),
])  # fmt: skip
def test_nothing_in_it_is_executed(text, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words) as caught:
        load_config(checkpoint(tmp_path, text))
    assert 'name the config first' in str(caught.value)
    assert not (tmp_path / 'executed').exists()

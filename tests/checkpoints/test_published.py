import hashlib
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import web

from mpvit.checkpoints import published
from mpvit.checkpoints.published import (
    Address,
    cached,
    entry_of,
    fetch,
    local_file,
    official,
    table,
)
from mpvit.config.names import shipped_configs
from mpvit.config.reading import load_config
from mpvit.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty folder of downloads, and none of files given by hand."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    monkeypatch.delenv('MPVIT_WEIGHTS', raising=False)
    return tmp_path / 'cache' / 'hub' / 'checkpoints'


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / 'web'
    folder.mkdir()
    with web.serving(folder) as url:
        yield folder, url


def entry(*addresses, name='mpvit_tiny_in1k'):
    return replace(table()[name], files=tuple(Address(*address) for address in addresses))


def files_in(folder):
    return [path for path in folder.rglob('*') if path.is_file() and '.locks' not in path.parts]


def test_every_entry_is_complete():
    detectors = {name for name, given in table().items() if given.of == 'detector'}
    assert detectors <= set(shipped_configs())
    for given in table().values():
        assert given.of in ('backbone', 'detector')
        assert all((given.model, given.published, given.licence, given.files))
        assert all(address.url.startswith('http') for address in given.files)


@pytest.mark.parametrize('name', [name for name in shipped_configs() if '_50e' in name])
def test_every_published_recipe_starts_from_published_weights(name):
    start = load_config(name).model.backbone.init_cfg
    assert start.type == 'Pretrained'
    kind = {'mpvit': 'MPViT', 'coat': 'CoaT', 'r50': 'ResNet-50'}[name.split('_')[0]]
    entry = entry_of(start.checkpoint)
    assert entry.of == 'backbone'
    assert kind in entry.model


def test_names_and_what_is_official():
    with pytest.raises(UserError, match='did you mean mpvit_small_in1k'):
        entry_of('mpvit_smal_in1k')
    assert official('r50_ddetr_50e').name == 'r50_ddetr_50e'
    assert official('mpvit_s_in1k_300e').name == 'mpvit_small_in1k'
    with pytest.raises(UserError, match='nothing is published for config mpvit_t_ddetr_toy'):
        official('mpvit_t_ddetr_toy')


def test_a_folder_given_by_hand_goes_first(tmp_path, monkeypatch):
    given = tmp_path / 'given'
    given.mkdir()
    monkeypatch.setenv('MPVIT_WEIGHTS', str(given))
    for file in ('r50_ddetr_50e.safetensors', 'mpvit_tiny.pth'):
        torch.save({}, given / file)
    assert local_file(entry_of('mpvit_tiny_in1k')) == given / 'mpvit_tiny.pth'
    assert local_file(entry_of('r50_ddetr_50e')) == given / 'r50_ddetr_50e.safetensors'
    assert local_file(entry_of('mpvit_small_in1k')) is None
    torch.save({'other': torch.ones(1)}, given / 'coat_small_7479cf9b.pth')
    with pytest.raises(UserError, match='should by its name have 7479cf9b'):
        local_file(entry_of('coat_small_in1k'))
    (given / 'mpvit_base.pth').write_text('<html>')
    with pytest.raises(UserError, match='is a web page'):
        local_file(entry_of('mpvit_base_in1k'))
    monkeypatch.setenv('MPVIT_WEIGHTS', str(tmp_path / 'none'))
    with pytest.raises(UserError, match='no such folder'):
        local_file(entry_of('mpvit_tiny_in1k'))


def test_addresses_in_turn_and_what_each_said(server, cache, capsys):
    folder, url = server
    torch.save({'weight': torch.ones(1)}, folder / 'good.pth')
    (folder / 'page.pth').write_text('<!doctype html><title>Not here</title>')
    dead, page, good = f'{url}/none.pth', f'{url}/page.pth', f'{url}/good.pth'
    with pytest.raises(UserError) as caught:
        fetch(entry((dead,), (page,)))
    message = str(caught.value)
    assert 'HTTP 404' in message
    assert 'is a web page' in message
    assert 'Put none.pth into a folder and set MPVIT_WEIGHTS' in message
    assert '\n' not in message
    assert files_in(cache) == []
    path = fetch(entry((dead,), (page,), (good,)))
    assert path.read_bytes() == (folder / 'good.pth').read_bytes()
    (folder / 'good.pth').unlink()
    assert fetch(entry((dead,), (page,), (good,))) == path  # without asking again
    assert capsys.readouterr().err.count('Downloading') == 5


def test_addresses_that_are_none():
    with pytest.raises(UserError, match='is no address'):
        cached('http://[::1/x.pth')


def test_one_process_of_a_machine_downloads_and_the_others_wait(server, cache, monkeypatch):
    folder, url = server
    monkeypatch.setenv('LOCAL_RANK', '1')
    monkeypatch.setattr(published, 'DOWNLOAD_SECONDS', 0.6)
    with pytest.raises(UserError, match='first process of this machine did not'):
        fetch(entry((f'{url}/none.pth',)))
    torch.save({'weight': torch.ones(1)}, folder / 'good.pth')
    monkeypatch.setattr(published, 'DOWNLOAD_SECONDS', 60)
    found = []
    waiting = threading.Thread(target=lambda: found.append(fetch(entry((f'{url}/good.pth',)))))
    waiting.start()
    path = cached(f'{url}/good.pth')  # the first process
    waiting.join()
    assert found == [path]


def test_wrong_sha256_is_not_kept(server, cache):
    folder, url = server
    torch.save({'weight': torch.ones(1)}, folder / 'good.pth')
    actual = hashlib.sha256((folder / 'good.pth').read_bytes()).hexdigest()
    with pytest.raises(UserError, match=f'{url}/good.pth has the sha256 {actual}, but should'):
        cached(f'{url}/good.pth', '0123456789abcdef')
    assert files_in(cache) == []
    assert cached(f'{url}/good.pth', actual[:16]).is_file()


def test_two_addresses_of_one_name(server):
    folder, url = server
    for number, place in enumerate(('one', 'two')):
        (folder / place).mkdir()
        torch.save({'weight': torch.tensor(number)}, folder / place / 'model.pth')
    first, second = (cached(f'{url}/{place}/model.pth') for place in ('one', 'two'))
    assert torch.load(first)['weight'] == 0
    assert torch.load(second)['weight'] == 1


def test_a_name_with_its_sha256_is_where_torch_keeps_it(cache):
    name = 'resnet50-0676ba61.pth'
    assert published.download_place(f'https://download.pytorch.org/models/{name}') == cache / name
    torch_knows = Path(torch.hub.get_dir()) / 'checkpoints'
    assert published.download_place('https://a.org/b.pth').parents[1] == torch_knows == cache


def test_several_processes_download_once(server, capsys):
    folder, url = server
    torch.save({'weight': torch.ones(1)}, folder / 'good.pth')
    threads = [threading.Thread(target=cached, args=[f'{url}/good.pth']) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert capsys.readouterr().err.count('Downloading') == 1

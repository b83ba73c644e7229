"""Files that are no checkpoint, or no safe one: one clear error each, and nothing is executed."""

import argparse
import hashlib
import os
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from mmengine.logging import HistoryBuffer

from mpvit.checkpoints.reading import ALLOWED, read, statistic
from mpvit.errors import UserError

WEIGHTS = {'model': {'a': torch.arange(50_000.0)}, 'args': argparse.Namespace(lr=1e-4)}


@pytest.fixture
def good(tmp_path):
    path = tmp_path / 'good.pth'
    torch.save(WEIGHTS, path)
    return path


@pytest.mark.parametrize('zipped', [True, False])
def test_official_file_is_read(tmp_path, zipped):
    torch.save(WEIGHTS, tmp_path / 'x.pth', _use_new_zipfile_serialization=zipped)
    content = read(tmp_path / 'x.pth')
    assert torch.equal(content['model']['a'], WEIGHTS['model']['a'])
    assert content['args'].lr == 1e-4


def test_own_training_file_is_read(tmp_path):
    history = HistoryBuffer([1.0, 3.0], [1, 1])
    torch.save({'hub': history, 'number': np.float64(2), 'flag': np.bool_(True)}, tmp_path / 'x')
    content = read(tmp_path / 'x')
    assert content['hub'].statistics('mean') == 2
    assert content['number'] == 2
    assert content['flag']


WRONG_BYTES = {
    b'': 'is empty',
    b'\n<!DOCTYPE html>\n<html><head>': 'web page',
    b'<HTML>\xff': 'web page',
    b'\xef\xbb\xbf' + b'<!---->' * 70: 'web page',
    b'<?xml version="1.0"?><Error><Code>AccessDenied': 'web page',
    b'404: Not Found': 'text file',
    b'version https://git-lfs.github.com/spec/v1\n': 'Git LFS',
    b'\x00\x01\x02' * 50: 'damaged',
    b'PK\x03\x04' + b'\x00' * 50: 'damaged',
    b'\x80\x02}q\x00.': 'damaged',
}


@pytest.mark.parametrize(('content', 'message'), WRONG_BYTES.items())
def test_what_is_no_checkpoint(tmp_path, content, message):
    path = tmp_path / 'x.pth'
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / 'none.pth', tmp_path):
        with pytest.raises(UserError, match='not found|a folder'):
            read(path)


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('kept', [0.001, 0.02, 0.5, 0.999])
def test_truncated(tmp_path, zipped, kept):
    path = tmp_path / 'x.pth'
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(UserError, match='damaged'):
        read(path)


def test_damaged_in_the_middle(good):
    content = bytearray(good.read_bytes())
    content[len(content) // 2] ^= 1  # one bit of one weight
    good.write_bytes(content)
    with pytest.raises(UserError, match='good/data/0'):
        read(good)


@pytest.fixture
def tensors_file(tmp_path):
    path = tmp_path / 'x.safetensors'
    safetensors.torch.save_file({'a': torch.arange(5000.0), 'b': torch.tensor(3)}, path)
    return path


@pytest.mark.parametrize('map_location', [None, 'cpu', torch.device('cpu'), lambda x, _: x])
def test_safetensors_are_told_by_their_content(tensors_file, map_location):
    content = read(tensors_file.rename(tensors_file.with_suffix('.bin')), map_location)
    assert torch.equal(content['a'], torch.arange(5000.0))
    assert content.keys() == {'a', 'b'}


@pytest.mark.parametrize('kept', [0.00001, 0.0005, 0.02, 0.5, 0.999])
def test_truncated_safetensors(tensors_file, kept):
    content = tensors_file.read_bytes()
    tensors_file.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(UserError, match='damaged|empty'):
        read(tensors_file)


def test_archive_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / 'x.pth', 'w') as archive:
        archive.writestr('readme.txt', 'weights')
    with pytest.raises(UserError, match='zip archive'):
        read(tmp_path / 'x.pth')


def test_archive_that_unpacks_to_more_than_it_has(tmp_path):
    torch.save({'model': {'a': torch.zeros(10**6)}}, tmp_path / 'x.pth')
    bomb = zipfile.ZipFile(tmp_path / 'y.pth', 'w', zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / 'x.pth') as archive, bomb:
        for name in archive.namelist():
            bomb.writestr(name, archive.read(name))
    assert read(tmp_path / 'x.pth')['model']['a'].shape == (10**6,)
    with pytest.raises(UserError, match='unpacks to more'):
        read(tmp_path / 'y.pth')


@pytest.mark.parametrize('kind', [list, tuple])
def test_values_that_multiply(tmp_path, kind):
    names = kind('ab')
    for _ in range(40):
        names = kind([names, names])
    torch.save({'state_dict': {}, 'meta': {'dataset_meta': {'classes': names}}}, tmp_path / 'x.pth')
    with pytest.raises(UserError, match='more than 1,000,000 values'):
        read(tmp_path / 'x.pth')


@pytest.mark.parametrize('depth', [2, 40])
@pytest.mark.parametrize('zipped', [True, False])
def test_keys_that_multiply(tmp_path, depth, zipped):
    """Hashing one would take hours, and nothing could interrupt it."""
    key = ()
    for _ in range(depth):
        key = (key, key)
    torch.save({'a': {}}, tmp_path / 'x.pth', _use_new_zipfile_serialization=zipped)
    pickled = pickle.dumps({'a': {}}, 2)
    other = pickle.dumps({}, 2)[:-1] + pickle.dumps(key, 2)[2:-1] + b'K\x01s.'  # {key: 1}
    if zipped:
        with zipfile.ZipFile(tmp_path / 'x.pth') as source:
            parts = {name: source.read(name) for name in source.namelist()}
        with zipfile.ZipFile(tmp_path / 'y.pth', 'w') as target:
            for name, data in parts.items():
                target.writestr(name, other if name.endswith('data.pkl') else data)
    else:
        whole = (tmp_path / 'x.pth').read_bytes()
        assert whole.count(pickled) == 1
        (tmp_path / 'y.pth').write_bytes(whole.replace(pickled, other))
    if depth == 2:
        assert read(tmp_path / 'y.pth') == {key: 1}
        return
    with pytest.raises(UserError, match='a tuple of more than 1,000,000 values'):
        read(tmp_path / 'y.pth')


def test_keys_that_collide(tmp_path):
    """A dict compares a key with all others of its hash: minutes for some 100,000."""
    keys = {number * (2**61 - 1): None for number in range(1, 20)}
    torch.save(keys, tmp_path / 'x.pth')
    assert read(tmp_path / 'x.pth') == keys
    torch.save([number * (2**61 - 1) for number in range(1, 10_010)], tmp_path / 'x.pth')
    with pytest.raises(UserError, match='integers of 61 bits'):
        read(tmp_path / 'x.pth')


def test_archive_behind_another_checkpoint(tmp_path):
    """Where torch reads the old format, the archive at the end of the file is not looked at."""
    key = ()
    for _ in range(40):
        key = (key, key)
    torch.save({}, tmp_path / 'x.pth', _use_new_zipfile_serialization=False)
    bomb = pickle.dumps({}, 2)[:-1] + pickle.dumps(key, 2)[2:-1] + b'K\x01s.'
    old = (tmp_path / 'x.pth').read_bytes().replace(pickle.dumps({}, 2), bomb)
    torch.save({}, tmp_path / 'y.pth')
    (tmp_path / 'z.pth').write_bytes(old + (tmp_path / 'y.pth').read_bytes())
    with pytest.raises(UserError, match='a tuple of more than'):
        read(tmp_path / 'z.pth')


def test_values_that_are_deep_or_contain_themselves(tmp_path):
    deep, loop = [], []
    for _ in range(100):
        deep = [deep]
    loop.append(loop)
    torch.save({'state_dict': {}, 'meta': deep}, tmp_path / 'x.pth')
    assert read(tmp_path / 'x.pth')['meta'] == deep
    torch.save({'state_dict': {}, 'meta': loop}, tmp_path / 'x.pth')
    with pytest.raises(UserError, match='contains itself'):
        read(tmp_path / 'x.pth')


@pytest.mark.parametrize('odd', [torch.eye(2).to_sparse(), torch.zeros(2, device='meta')])
def test_tensors_without_all_of_their_values(tmp_path, odd):
    torch.save(dict(state_dict=dict(w=odd)), path := tmp_path / 'odd.pth')
    with pytest.raises(UserError, match='damaged .*a tensor that is sparse or without values'):
        read(path)


def test_other_content(tmp_path):
    torch.save([1, 2], tmp_path / 'x.pth')
    with pytest.raises(UserError, match='list'):
        read(tmp_path / 'x.pth')


class Malicious:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def mark(path):
    path.write_text('executed')


def calls(target):
    return {
        'system': (os.system, (f'touch {target}',)),
        'eval': (eval, (f'open({str(target)!r}, "w")',)),
        'getattr': (getattr, (HistoryBuffer, '__init__')),
        'getattr_other': (getattr, (np.ndarray, 'tofile')),
        'own_function': (mark, (target,)),
    }


@pytest.mark.parametrize('form', ['zip', 'legacy', 'pickle'])
@pytest.mark.parametrize('name', list(calls('')))
def test_malicious_file_executes_nothing(tmp_path, name, form):
    target = tmp_path / 'executed'
    path = tmp_path / 'x.pth'
    content = {'model': WEIGHTS['model'], 'args': Malicious(*calls(target)[name])}
    if form == 'pickle':
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == 'zip')
    with pytest.raises(UserError) as error:
        read(path)
    assert form == 'pickle' or 'which could execute code' in str(error.value)
    assert form == 'pickle' or 'MPVIT_TRUST_CHECKPOINTS=1' in str(error.value)
    assert not target.exists()


def test_trusted_file_is_read(tmp_path, monkeypatch):
    torch.save({'model': torch.nn.Linear(2, 2)}, tmp_path / 'x.pth')
    with pytest.raises(UserError, match=r'it needs torch\.nn\.modules\.linear\.Linear'):
        read(tmp_path / 'x.pth')
    monkeypatch.setenv('MPVIT_TRUST_CHECKPOINTS', '1')
    assert 'model' in read(tmp_path / 'x.pth')


def test_getattr_serves_what_histories_need_and_nothing_else():
    assert statistic(HistoryBuffer, 'mean') is HistoryBuffer.mean
    for holder, name in ((HistoryBuffer, '__init__'), (os, 'system'), (HistoryBuffer(), 'mean')):
        with pytest.raises(pickle.UnpicklingError):
            statistic(holder, name)
    assert getattr not in ALLOWED


@pytest.mark.parametrize('joint', ['-', '_'])
def test_sha256(good, joint):
    digest = hashlib.sha256(good.read_bytes()).hexdigest()
    for expected in (digest, digest.upper(), digest[:8]):
        read(good, sha256=expected)
    with pytest.raises(UserError, match=f'{digest}.* 00000000'):
        read(good, sha256='0' * 8)
    with pytest.raises(UserError, match='is not a sha256'):
        read(good, sha256='abc')
    named = good.with_name(f'good{joint}{digest[:7]}{"a" if digest[7] != "a" else "b"}.pth')
    good.rename(named)
    with pytest.raises(UserError, match='by its name'):
        read(named)
    dated = named.rename(good.with_name('good-20261123.pth'))
    read(dated)

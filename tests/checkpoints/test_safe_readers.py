"""Files from others execute nothing, through whichever door they come."""

import os
import pickle
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import mmengine
import pytest
import torch
import web
from mmengine.config import Config
from mmengine.model import PretrainedInit
from mmengine.runner import CheckpointLoader, Runner, checkpoint
from torch import nn

from mpvit.checkpoints.conversion import convert_file
from mpvit.checkpoints.reading import read
from mpvit.errors import UserError


class Marker:
    """Writes a file when it is unpickled."""

    def __reduce__(self):
        return eval, ('open("executed", "w").close()',)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Current folder with a malicious checkpoint and pickle, which must not have run afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    monkeypatch.delenv('MPVIT_TRUST_CHECKPOINTS', raising=False)
    torch.save({'state_dict': {}, 'meta': Marker(), 'message_hub': {}, 'optimizer': {}}, 'x.pth')
    Path('x.pkl').write_bytes(pickle.dumps(Marker()))
    yield tmp_path
    assert not (tmp_path / 'executed').exists()
    torch.load('x.pth', weights_only=False)
    assert (tmp_path / 'executed').exists()  # it would have


def runner():
    return SimpleNamespace(
        _has_loaded=False, model=nn.Linear(1, 1), call_hook=None, logger=None, _resume=True
    )


def from_the_web(load):
    with web.serving(Path.cwd()) as url:
        load(f'{url}/x.pth')


CHECKPOINT_DOORS = {
    'CheckpointLoader': lambda: CheckpointLoader.load_checkpoint('x.pth'),
    'load_checkpoint': lambda: checkpoint.load_checkpoint(nn.Linear(1, 1), 'x.pth'),
    '_load_checkpoint': lambda: checkpoint._load_checkpoint('x.pth'),
    'with prefix': lambda: checkpoint._load_checkpoint_with_prefix('a', 'x.pth'),
    'safe load': lambda: checkpoint._safe_torch_load('x.pth'),
    'told to be unsafe': lambda: checkpoint._safe_torch_load('x.pth', weights_only=False),
    'buffer': lambda: checkpoint._safe_torch_load(BytesIO(Path('x.pth').read_bytes())),
    'local': lambda: checkpoint.load_from_local('x.pth', 'cpu'),
    'url': lambda: from_the_web(checkpoint.load_from_http),
    'PretrainedInit': lambda: PretrainedInit('x.pth')(nn.Linear(1, 1)),
    'its prefix': lambda: PretrainedInit('x.pth', prefix='a')(nn.Linear(1, 1)),
    'Runner.load_checkpoint': lambda: Runner.load_checkpoint(runner(), 'x.pth'),
    'Runner.resume': lambda: Runner.resume(
        SimpleNamespace(load_checkpoint=lambda *a, **k: Runner.load_checkpoint(runner(), *a, **k)),
        'x.pth',
    ),
    'convert': lambda: convert_file('x.pth', 'y.pth'),
}


@pytest.mark.parametrize('door', CHECKPOINT_DOORS)
def test_a_malicious_checkpoint_is_refused(folder, door):
    with pytest.raises(UserError, match='could execute code'):
        CHECKPOINT_DOORS[door]()


def test_detectors_of_mmdet(folder, root):
    from mmdet.apis import DetInferencer, init_detector

    config = str(root / 'tests' / 'data' / 'tiny.py')
    with pytest.raises(UserError, match='could execute code'):
        init_detector(config, 'x.pth', device='cpu')
    with pytest.raises(UserError, match='could execute code'):
        DetInferencer(weights='x.pth', device='cpu')


@pytest.mark.parametrize('place', ['meta', 'message_hub'])
def test_an_inferencer_without_a_config_does_not_take_that_of_the_file(folder, place):
    from mmdet.apis import DetInferencer

    source = 'open("executed", "w").close()'
    content = {'state_dict': {}, 'meta': {}}
    if place == 'meta':
        content['meta']['cfg'] = source
    else:
        content['message_hub'] = {'runtime_info': {'cfg': source}, 'resumed_keys': {'cfg': True}}
    torch.save(content, 'config.pth')
    with pytest.raises(ValueError, match='config'):
        DetInferencer(weights='config.pth', device='cpu')
    assert str(source) in str(read('config.pth'))  # the file itself is left as it is


@pytest.mark.parametrize('name', ['x.pkl', 'x.pickle'])
def test_pickles_are_written_but_not_read(folder, name, monkeypatch):
    Path('x.pickle').write_bytes(Path('x.pkl').read_bytes())
    with pytest.raises(UserError, match='pickle'):
        mmengine.load(name)
    with pytest.raises(UserError, match='pickle'), open(name, 'rb') as file:
        mmengine.load(file, file_format='pkl')
    mmengine.dump([1, 2], 'y.pkl')
    assert pickle.loads(Path('y.pkl').read_bytes()) == [1, 2]
    monkeypatch.setenv('MPVIT_TRUST_CHECKPOINTS', '1')
    assert mmengine.load('y.pkl') == [1, 2]


def test_yaml_builds_plain_values_only(folder):
    for name in ('x.yaml', 'x.yml'):
        Path(name).write_text("a: !!python/object/apply:eval [\"open('executed', 'w')\"]")
        for attempt in (lambda: mmengine.load(name), lambda: Config.fromfile(name)):  # noqa: B023
            with pytest.raises(Exception, match='could not determine a constructor'):
                attempt()
        Path(name).write_text('a: [1, b]')
        assert mmengine.load(name) == {'a': [1, 'b']}


def test_what_mmengine_reads_is_limited(folder, monkeypatch):
    for name in ('x.json', 'x.yaml', 'x.jpg'):
        os.mkfifo(name)
        with pytest.raises(OSError, match='a named pipe'):
            mmengine.fileio.get(name)
    with pytest.raises(OSError, match='a named pipe'):
        mmengine.load('x.json')
    Path('a.json').write_bytes(b'{"a":\r\n [1]}')
    assert mmengine.load('a.json') == {'a': [1]}
    assert mmengine.fileio.get_text('a.json') == Path('a.json').read_text()
    with web.serving(Path.cwd()) as url:
        assert mmengine.load(f'{url}/a.json') == {'a': [1]}
        monkeypatch.setenv('MPVIT_MAX_BYTES', '3')
        with pytest.raises(UserError, match='more than 3 bytes'):
            mmengine.load(f'{url}/a.json')


def test_pillow_starts_no_program(folder):
    from PIL import EpsImagePlugin

    assert not EpsImagePlugin.has_ghostscript()

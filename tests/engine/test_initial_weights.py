"""Where the backbone of a training starts: `mpvit.engine.initial_weights`."""

import json
import logging

import parity_fill
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from runs import log_of

from mpvit.checkpoints import published
from mpvit.config.reading import load_config
from mpvit.engine.initial_weights import initial_weights, set_initial_weights
from mpvit.engine.train import train
from mpvit.errors import UserError


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """No downloads made before, and none to be had."""

    def refuse(url, *_, **__):
        raise UserError(f'{url} cannot be downloaded')

    init_default_scope('mmdet')
    monkeypatch.setattr(published, 'download', refuse)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('MPVIT_WEIGHTS', str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(('name', 'keys', 'file', 'tensor'), [
    ('mpvit_s_ddetr_50e', 'mpvit_small', 'mpvit_small.pth',
     ('stages.2.aggregate.conv.weight', 'mhca_stages.2.aggregate.conv.weight')),
    ('coat_lite_s_ddetr_50e', 'coat_lite_small', 'coat_lite_small_in1k.pth',
     ('stages.1.cls_token', 'cls_token2')),
])  # fmt: skip
def test_published_recipes_start_from_the_published_file(root, offline, name, keys, file, tensor):
    """The message without the file; with one of the official names and shapes, its weights."""
    config = load_config(name)
    with pytest.raises(UserError) as caught:
        initial_weights(config)
    message = str(caught.value)
    for way in ('MPVIT_WEIGHTS', '--pretrained', '--from-scratch', 'docs/pretrain.md', 'http'):
        assert way in message
    folder = root / 'tests' / 'data' / 'parity' / 'keys'
    listed = json.loads((folder / f'backbone_{keys}.json').read_text())
    values = parity_fill.fill_state_dict(listed['keys'], listed['aliases'], seed=0)
    weights = {key: torch.from_numpy(value) for key, value in values.items()}
    torch.save({'model': weights}, offline / file)
    assert str(offline / file) in initial_weights(config)
    backbone = MODELS.build(config.model.backbone)
    backbone.init_weights()
    ours, official = tensor
    assert torch.equal(backbone.state_dict()[ours], weights[official])


def test_a_whole_checkpoint_goes_first(offline):
    config = load_config('mpvit_s_ddetr_50e')
    config.load_from = 'some.pth'
    assert initial_weights(config) == 'Backbone MPViT: from the checkpoint some.pth.'
    config.load_from = None
    config.work_dir, config.resume = str(offline), 'auto'
    with pytest.raises(UserError, match='no weights'):  # nothing to resume from
        initial_weights(config)
    (offline / 'epoch_1.pth').write_bytes(b'')
    assert 'resumed' in initial_weights(config)


def test_other_weights_and_none(offline):
    config = load_config('coat_s_ddetr_50e')
    (offline / 'own.pth').write_text('<!doctype html>')
    set_initial_weights(config, pretrained=str(offline / 'own.pth'))
    with pytest.raises(UserError, match='is a web page'):
        initial_weights(config)
    torch.save({}, offline / 'own.pth')
    assert set_initial_weights(config, pretrained=str(offline / 'own.pth')) is None
    assert str(offline / 'own.pth') in initial_weights(config)
    warning = set_initial_weights(config, from_scratch=True)
    assert 'far below the published' in warning
    assert initial_weights(config) == 'Backbone CoaT: from random numbers.'
    toy = load_config('mpvit_t_ddetr_toy')
    assert set_initial_weights(toy, from_scratch=True) is None  # as its config says


def test_a_training_says_where_it_starts(tiny, offline, caplog):
    config, places = tiny
    name = 'mpvit_tiny_in1k'
    options = [*places, 'train_cfg.max_epochs=1', 'optim_wrapper.optimizer.lr=0']
    backbone = MODELS.build(load_config(config).model.backbone)
    backbone.init_weights()
    torch.save({'state_dict': backbone.state_dict()}, offline / f'{name}.pth')
    work = offline / 'work'
    with caplog.at_level(logging.INFO):
        train(config, work_dir=str(work), pretrained=f'mpvit://{name}', cfg_options=options)
    assert f'Backbone MPViT: from {name}' in log_of(work)
    left = torch.load(work / 'epoch_1.pth', weights_only=False)['state_dict']
    for key, value in backbone.named_parameters():
        assert torch.equal(left[f'backbone.{key}'], value)
    # a detector given to start from or resumed has the backbone: no file is needed any more
    (offline / f'{name}.pth').unlink()
    options += ['model.backbone.init_cfg.type=Pretrained']
    options += [f'model.backbone.init_cfg.checkpoint=mpvit://{name}']
    train(config, work_dir=str(work / 'two'), load_from=str(work / 'epoch_1.pth'),
          cfg_options=options)  # fmt: skip
    assert 'Backbone MPViT: from the checkpoint' in log_of(work / 'two')

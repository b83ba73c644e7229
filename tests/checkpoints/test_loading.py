"""Official files through mmengine's own doors, and files that do not fit there."""

import argparse

import pytest
import torch
import web
from mmengine.runner import CheckpointLoader

from mpvit.checkpoints import loading
from mpvit.errors import UserError
from mpvit.models.mpvit import MPViT


@pytest.fixture(scope='module')
def imagenet(official, tmp_path_factory):
    """An official ImageNet file of MPViT-Tiny, and its weights."""
    weights = official('backbone_mpvit_tiny')
    weights['cls_head.cls.weight'] = torch.zeros(1000, 216)
    file = tmp_path_factory.mktemp('official') / 'mpvit_tiny.pth'
    torch.save({'model': weights, 'args': argparse.Namespace(lr=1e-3)}, file)
    return file, weights


def pretrained(arch, file, out_indices=(1, 2, 3), **options):
    init_cfg = dict(type='Pretrained', checkpoint=str(file), **options)
    model = MPViT(arch, out_indices=out_indices, init_cfg=init_cfg)
    model.init_weights()
    return model


def test_imagenet_file_as_init_cfg(imagenet):
    file, weights = imagenet
    model = pretrained('tiny', file)
    assert torch.equal(
        model.stages[3].paths[2].crpe.convs[1].weight,
        weights['mhca_stages.3.mhca_blks.2.crpe.conv_list.1.weight'],
    )


def test_init_cfg_of_another_size_is_an_error(imagenet):
    with pytest.raises(UserError, match='init_cfg of MPViT, .*of another shape'):
        pretrained('xsmall', imagenet[0])


def test_init_cfg_takes_the_backbone_of_a_detector(imagenet, tmp_path):
    weights = CheckpointLoader.load_checkpoint(str(imagenet[0]))['state_dict']
    detector = {n: value for n, value in weights.items() if n.startswith('backbone.')}
    detector['bbox_head.x'] = torch.zeros(1)
    torch.save({'state_dict': detector}, tmp_path / 'detector.pth')
    expected = pretrained('tiny', tmp_path / 'detector.pth', prefix='backbone.').state_dict()
    for name, value in pretrained('tiny', tmp_path / 'detector.pth').state_dict().items():
        assert torch.equal(value, expected[name])
    with pytest.raises(UserError, match='missing'):
        pretrained('tiny', tmp_path / 'detector.pth', prefix='neck.')


def test_init_cfg_leaves_the_head_of_a_classifier_of_ours(imagenet, tmp_path):
    classifier = CheckpointLoader.load_checkpoint(str(imagenet[0]))['state_dict']
    assert classifier['head.fc.weight'].shape == (1000, 216)
    name, other = 'stages.1.aggregate.conv.weight', torch.full((176, 384, 1, 1), 0.5)
    # with a hook that averages the weights the average is what is saved as them
    averaged = classifier | {f'backbone.{name}': other}
    torch.save(
        {'state_dict': averaged, 'ema_state_dict': classifier | {'steps': torch.tensor(7)}},
        tmp_path / 'best.pth',
    )
    model = pretrained('tiny', tmp_path / 'best.pth', out_indices=(1, 2))
    assert torch.equal(model.state_dict()[name], other)


def test_init_cfg_of_a_missing_file_and_of_other_weights(tmp_path):
    with pytest.raises(UserError, match='not found'):
        pretrained('tiny', tmp_path / 'none.pth')
    torch.save({'weight': torch.zeros(1)}, tmp_path / 'other.pth')
    with pytest.raises(UserError, match='missing .*; 1 unexpected'):
        pretrained('tiny', tmp_path / 'other.pth')


def test_torchvision_file_without_counters_fits_a_resnet(official, tmp_path):
    from mmdet.models import ResNet

    weights = official('backbone_resnet50') | {'fc.weight': torch.zeros(1000, 2048)}
    torch.save(weights, tmp_path / 'resnet50.pth')
    file = str(tmp_path / 'resnet50.pth')
    model = ResNet(50, init_cfg=dict(type='Pretrained', checkpoint=file))
    model.init_weights()
    assert torch.equal(model.layer4[2].conv3.weight, weights['layer4.2.conv3.weight'])


@pytest.mark.parametrize('scheme', ['s3', 'a:petrel', 'pavi', 'mmcls'])
def test_other_schemes_are_refused(scheme):
    with pytest.raises(UserError, match='download the file'):
        CheckpointLoader.load_checkpoint(f'{scheme}://bucket/x.pth')


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server on a folder; downloads are kept elsewhere."""
    folder = tmp_path / 'web'
    folder.mkdir()
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    with web.serving(folder) as url:
        yield folder, url


def test_download_is_converted_and_kept(server, imagenet):
    folder, url = server
    (folder / 'mpvit_tiny.pth').write_bytes(imagenet[0].read_bytes())
    first = CheckpointLoader.load_checkpoint(f'{url}/mpvit_tiny.pth')
    (folder / 'mpvit_tiny.pth').unlink()
    second = CheckpointLoader.load_checkpoint(f'{url}/mpvit_tiny.pth')
    assert 'backbone.stages.0.aggregate.conv.weight' in first['state_dict']
    assert first['state_dict'].keys() == second['state_dict'].keys()


def test_dead_links(server, imagenet, monkeypatch):
    folder, url = server
    waits = []
    monkeypatch.setattr(loading, 'barrier', lambda: waits.append(1))
    with pytest.raises(UserError, match=r'HTTP 404 .*docs/checkpoints\.md'):
        CheckpointLoader.load_checkpoint(f'{url}/none.pth')
    assert waits  # mmengine has the other processes wait there
    (folder / 'page.pth').write_text('<!doctype html><title>Not here</title>')
    with pytest.raises(UserError, match='is a web page'):
        CheckpointLoader.load_checkpoint(f'{url}/page.pth')
    (folder / 'page.pth').write_bytes(imagenet[0].read_bytes())
    CheckpointLoader.load_checkpoint(f'{url}/page.pth')  # the page was not kept
    with pytest.raises(UserError, match='there is no model none'):
        CheckpointLoader.load_checkpoint('torchvision://none')

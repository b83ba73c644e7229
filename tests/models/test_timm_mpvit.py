"""MPViT by timm's own functions."""

import pytest
import timm
import torch
from parity_classifier import TOLERANCE, classifier, largest_error, official_weights
from timm.data import resolve_data_config
from timm.optim import create_optimizer_v2

from mpvit.models.mpvit import ARCHS, MPViT
from mpvit.models.timm_mpvit import TimmMPViT
from mpvit.register import MODULES

TINY = dict(embed_dims=(16, 24, 32, 40), num_layers=(1, 1, 1, 1), mlp_ratio=2)
NAMES = [f'mpvit_{arch}' for arch in ARCHS]


@pytest.fixture(scope='module')
def official_file(tmp_path_factory):
    """An official ImageNet file of MPViT-Tiny."""
    file = tmp_path_factory.mktemp('official') / 'mpvit_tiny.pth'
    torch.save({'model': official_weights('mpvit_tiny')}, file)
    return file


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.rand(2, 3, 64, 96)


def test_all_sizes_are_listed():
    assert set(timm.list_models('mpvit_*')) == set(NAMES)
    assert not timm.list_models('mpvit_*', pretrained=True)
    assert 'mpvit.models.timm_mpvit' in MODULES
    for name, count in (('mpvit_xsmall', 10_573_448), ('mpvit_small', 22_892_400)):
        assert sum(p.numel() for p in timm.create_model(name).parameters()) == count  # published


def test_an_official_file_gives_the_official_logits(official_file):
    model = timm.create_model('mpvit_tiny', checkpoint_path=str(official_file)).eval()
    assert largest_error('mpvit_tiny', model) < TOLERANCE
    ours = classifier('mpvit_tiny', official_file).state_dict()
    assert model.state_dict().keys() == ours.keys()
    other = timm.create_model('mpvit_tiny').eval()
    other.load_state_dict(ours)  # of a classifier that was trained here
    assert all(map(torch.equal, other.state_dict().values(), model.state_dict().values()))


def test_features_are_the_backbones(official_file, images):
    features = timm.create_model(
        'mpvit_tiny',
        features_only=True,
        out_indices=(1, 2),
        pretrained=True,
        pretrained_cfg_overlay=dict(file=str(official_file)),
    ).eval()
    init_cfg = dict(type='Pretrained', checkpoint=str(official_file))
    backbone = MPViT('tiny', out_indices=(1, 2), init_cfg=init_cfg).eval()
    backbone.init_weights()
    with torch.no_grad():
        found, expected = features(images), backbone(images)
    assert all(map(torch.equal, found, expected))
    assert features.feature_info.channels() == [176, 216]
    assert features.feature_info.reduction() == [8, 16]
    assert sum(p.numel() for p in features.parameters()) == sum(
        p.numel() for p in backbone.parameters()
    )


def test_other_classes_take_the_backbone_of_a_file(official_file):
    overlay = dict(file=str(official_file))
    model = timm.create_model(
        'mpvit_tiny', pretrained=True, pretrained_cfg_overlay=overlay, num_classes=7
    )
    whole = timm.create_model('mpvit_tiny', checkpoint_path=str(official_file)).state_dict()
    for name, value in model.state_dict().items():
        assert value.shape[0] == 7 if name.startswith('head.') else torch.equal(value, whole[name])


def test_no_weights_are_promised():
    with pytest.raises(RuntimeError, match='No pretrained weights'):
        timm.create_model('mpvit_tiny', pretrained=True)


def test_what_timm_asks_of_a_model(images):
    model = TimmMPViT(TINY, num_classes=5, drop_path_rate=0.1)
    maps = model.forward_features(images)
    assert maps.shape == (2, 40, 2, 3) == (2, model.num_features, 2, 3)
    assert model.forward_head(maps, pre_logits=True).shape == (2, 40)
    torch.testing.assert_close(model.forward_head(maps, pre_logits=True), maps.mean((2, 3)))
    assert model(images).shape == (2, 5)
    assert model.get_classifier().out_features == 5
    last, chosen = model.forward_intermediates(images, indices=2)
    assert [tuple(m.shape[1:]) for m in chosen] == [(40, 4, 6), (40, 2, 3)]
    assert last is chosen[-1]
    with pytest.raises(ValueError, match='NHWC'):
        model.forward_intermediates(images, output_fmt='NHWC')
    model.set_grad_checkpointing()
    model(images).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.reset_classifier(0)
    assert model(images).shape == (2, 40)
    assert TimmMPViT(TINY, in_chans=1)(images[:, :1]).shape == (2, 1000)
    groups = create_optimizer_v2(model, 'adamw', layer_decay=0.5).param_groups
    assert len({group['lr_scale'] for group in groups}) == 5  # the stem and four stages


def test_images_are_prepared_as_published():
    model = timm.create_model('mpvit_tiny')
    data = resolve_data_config({}, model=model)
    assert (data['input_size'], data['crop_pct'], data['interpolation']) == (
        (3, 224, 224),
        224 / 256,
        'bicubic',
    )
    assert data['mean'] == (0.485, 0.456, 0.406)

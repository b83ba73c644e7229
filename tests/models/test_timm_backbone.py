"""Backbones of timm: several families, and what a detector asks of a backbone."""

import copy
from pathlib import Path

import pytest
import timm
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

from mpvit.config.reading import load_config
from mpvit.engine.hooks.prepare_inference import prepare
from mpvit.engine.initial_weights import initial_weights, set_initial_weights
from mpvit.errors import UserError
from mpvit.models.timm_backbone import TimmBackbone

CONFIG = Path(__file__).resolve().parents[1] / 'data' / 'tiny.py'
# a family each: name and the strides of the maps 1 to 3
FAMILIES = {
    'convnext_atto': (8, 16, 32),
    'resnet18': (4, 8, 16),
    'mobilenetv3_small_050': (4, 8, 16),  # batch norm and activation in one module
    'swin_tiny_patch4_window7_224': (8, 16, 32),  # gives channels last; made for 224 pixels
    'mambaout_femto': (8, 16, 32),  # gives channels last
    'regnetx_002': (4, 8, 16),
}
IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('name', FAMILIES)
def test_maps_have_the_channels_and_strides_that_are_told(name):
    backbone = TimmBackbone(name).eval()
    with torch.no_grad():
        maps = backbone(IMAGES)
    sizes = [(64 // stride, 96 // stride) for stride in FAMILIES[name]]
    assert [tuple(m.shape[1:]) for m in maps] == [
        (channels, *size) for channels, size in zip(backbone.out_channels, sizes, strict=True)
    ]


@pytest.mark.parametrize('name', ['convnext_atto', 'mobilenetv3_small_050', 'mambaout_femto'])
def test_a_classifier_in_timms_format_gives_timms_maps(name, tmp_path):
    torch.manual_seed(1)
    whole = timm.create_model(name).eval()
    torch.save(whole.state_dict(), tmp_path / 'timm.pth')
    given = dict(type='Pretrained', checkpoint=str(tmp_path / 'timm.pth'))
    backbone = TimmBackbone(name, init_cfg=given)
    backbone.init_weights()
    with torch.no_grad():
        found = backbone.eval()(IMAGES)
        wanted = whole.forward_intermediates(IMAGES, intermediates_only=True)
    by_shape = {tuple(m.shape): m for m in wanted}
    compared = [m for m in found if tuple(m.shape) in by_shape]
    assert len(compared) >= 2
    for maps in compared:
        torch.testing.assert_close(maps, by_shape[tuple(maps.shape)])


def test_weights_of_another_model_are_refused(tmp_path):
    torch.save(timm.create_model('convnext_femto').state_dict(), tmp_path / 'other.pth')
    given = dict(type='Pretrained', checkpoint=str(tmp_path / 'other.pth'))
    with pytest.raises(UserError, match=r'other.pth: .*of another shape.*convnext_atto'):
        TimmBackbone('convnext_atto', init_cfg=given).init_weights()


def test_timms_own_weights_are_fetched_by_a_training_only(monkeypatch):
    asked = []
    create = timm.create_model

    def fake(name, pretrained=False, **settings):
        asked.append(pretrained)
        torch.manual_seed(7 if pretrained else 0)
        return create(name, **settings)

    monkeypatch.setattr(timm, 'create_model', fake)
    backbone = TimmBackbone('resnet18', pretrained=True)
    assert asked == [False]
    before = backbone.model.conv1.weight.clone()
    backbone.init_weights()
    assert asked == [False, True]
    assert not torch.equal(backbone.model.conv1.weight, before)
    TimmBackbone('resnet18').init_weights()
    assert asked == [False, True, False]


def test_a_training_says_where_the_weights_come_from():
    config = load_config(CONFIG)
    config.model.backbone = dict(type='TimmBackbone', name='resnet18', pretrained=True)
    assert initial_weights(config) == "Backbone TimmBackbone: from timm's weights of resnet18."
    set_initial_weights(config, from_scratch=True)
    assert initial_weights(config) == 'Backbone TimmBackbone: from random numbers.'


@pytest.mark.parametrize('name', ['convnext_atto', 'resnet18', 'mobilenetv3_small_050'])
def test_frozen_stages_and_norms(name):
    backbone = TimmBackbone(name, frozen_stages=1, norm_eval=True).train()
    frozen = [n for n, p in backbone.named_parameters() if not p.requires_grad]
    assert frozen
    loss = sum(m.square().sum() for m in backbone(IMAGES))
    loss.backward()
    assert all(p.grad is not None for p in backbone.parameters() if p.requires_grad)
    # what map 1 is computed from does not change, what the others add does
    first = [n for n, p in TimmBackbone(name, (1,)).named_parameters() if p.requires_grad]
    assert set(first) <= set(frozen)
    trained = {n for n, p in backbone.named_parameters() if p.requires_grad}
    whole = {n for n, p in TimmBackbone(name).named_parameters() if p.requires_grad}
    assert trained == whole - set(first)
    assert not any(m.training for m in backbone.modules() if 'BatchNorm' in type(m).__name__)


def test_frozen_stages_and_attention_of_one_size():
    with pytest.raises(UserError, match='maps 0 to 3'):
        TimmBackbone('convnext_atto', frozen_stages=4)
    with pytest.raises(UserError, match='one size only'):
        TimmBackbone('coat_lite_tiny')
    with pytest.raises(UserError, match='did you mean convnext_atto'):
        TimmBackbone('convnext_ato')
    with pytest.raises(UserError, match='no_such_argument'):
        TimmBackbone('resnet18', no_such_argument=1)
    with pytest.raises(UserError, match=r"convnext_atto with {'out_indices': \(1, 7\)}"):
        TimmBackbone('convnext_atto', out_indices=(1, 7))
    swin = TimmBackbone('swin_tiny_patch4_window7_224')
    with pytest.raises(UserError, match='62x96.*pad_size_divisor'):
        swin(IMAGES[:, :, :62])


def detector(name, **neck):
    init_default_scope('mmdet')
    model = copy.deepcopy(load_config(CONFIG).model)
    model.backbone = dict(type='TimmBackbone', name=name, out_indices=(1, 2))
    model.neck.pop('in_channels')
    model.neck.update(neck)
    torch.manual_seed(0)
    built = MODELS.build(model)
    built.init_weights()
    return built


@pytest.mark.parametrize('neck', [{}, {'in_channels': 'auto'}], ids=str)
@pytest.mark.parametrize('name', ['convnext_atto', 'mobilenetv3_small_050'])
def test_a_detector_finds_the_channels_and_survives_folding(name, neck):
    model = detector(name, **neck).eval()
    channels = [conv.conv.in_channels for conv in model.neck.convs]
    assert channels == model.backbone.out_channels
    with torch.no_grad():
        before = model.extract_feat(IMAGES)
        after = prepare(copy.deepcopy(model)).extract_feat(IMAGES)
    for maps, folded in zip(before, after, strict=True):
        torch.testing.assert_close(folded, maps, rtol=1e-4, atol=1e-4)

"""Our backbones in mmdet's detectors, and other backbones in ours: a training step of each."""

import re
import sys

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import nn

from mpvit.errors import UserError
from mpvit.models.detector import check_neck
from mpvit.models.mpvit import ARCHS

NARROW = dict(embed_dims=(16, 24, 32, 40), num_layers=(1, 1, 1, 1), mlp_ratio=2)
CHANNELS = [24, 32, 40, 40]
SIZE = 96


def documented(root, tmp_path, name) -> Config:
    """A config of docs/backbones.md."""
    page = (root / 'docs' / 'backbones.md').read_text()
    text = re.search(rf'<!-- config: {name} -->\n```python\n(.*?)```', page, re.DOTALL)[1]
    (tmp_path / f'{name}.py').write_text(text)
    return Config.fromfile(tmp_path / f'{name}.py')


def narrowed(model):
    """A detector of mmdet or ours with few channels, to save time."""
    model.neck.out_channels = 32
    if 'encoder' in model:
        model.num_queries = 20
        model.neck.out_channels = 256
        for part in (model.encoder, model.decoder):
            part.num_layers = 1
            part.layer_cfg.ffn_cfg.feedforward_channels = 64
        return model
    for head in (model.get('rpn_head'), model.get('bbox_head')):
        if head:
            head.update(in_channels=32, feat_channels=32)
    roi = model.get('roi_head')
    if roi:
        for part in (roi.bbox_roi_extractor, roi.mask_roi_extractor):
            part.out_channels = 32
        roi.bbox_head.update(in_channels=32, fc_out_channels=32)
        roi.mask_head.update(in_channels=32, conv_out_channels=32)
    return model


def sample() -> DetDataSample:
    found = DetDataSample(
        metainfo=dict(
            img_shape=(SIZE, SIZE),
            ori_shape=(SIZE, SIZE),
            pad_shape=(SIZE, SIZE),
            batch_input_shape=(SIZE, SIZE),
            scale_factor=(1.0, 1.0),
        )
    )
    masks = torch.zeros(2, SIZE, SIZE)
    masks[0, 10:60, 8:70] = masks[1, 40:90, 30:80] = 1
    found.gt_instances = InstanceData(
        bboxes=torch.tensor([[8.0, 10, 70, 60], [30, 40, 80, 90]]),
        labels=torch.tensor([1, 4]),
        masks=BitmapMasks(masks.numpy(), SIZE, SIZE),
    )
    return found


def step(settings):
    """One training step; returns the model and its losses, summed by name."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = revert_sync_batchnorm(MODELS.build(settings))
    model.init_weights()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3)
    first = [p.detach().clone() for p in model.backbone.parameters()]
    losses = model.train().loss(torch.randn(2, 3, SIZE, SIZE), [sample(), sample()])
    total, values = model.parse_losses(losses)
    total.backward()
    optimizer.step()
    assert total.isfinite()
    changed = [
        not torch.equal(a, b) for a, b in zip(first, model.backbone.parameters(), strict=True)
    ]
    assert sum(changed) > len(changed) / 2
    return model, values


@pytest.mark.parametrize(
    ('name', 'losses'),
    [
        ('retinanet', {'loss_cls', 'loss_bbox'}),
        ('mask_rcnn', {'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'loss_mask'}),
        ('dino', {'loss_cls', 'loss_iou', 'dn_loss_cls', 'enc_loss_bbox'}),
    ],
)
def test_mpvit_in_other_detectors(root, tmp_path, name, losses):
    settings = documented(root, tmp_path, name).model
    backbone, count = settings.backbone, len(settings.backbone.out_indices)
    whole = MODELS.build(dict(backbone, init_cfg=None))
    wanted = [whole.out_channels[index] for index in backbone.out_indices]
    assert settings.neck.in_channels == wanted  # those of the page
    assert backbone.pop('init_cfg').checkpoint == f'mpvit://mpvit_{backbone.arch}_in1k'
    backbone.arch = NARROW
    settings.neck.in_channels = CHANNELS[-count:]
    assert losses <= set(step(narrowed(settings))[1])


def test_the_table_of_channels(root):
    page = (root / 'docs' / 'backbones.md').read_text()
    rows = re.findall(r"^\| `'(\w+)'` \| `\[(.*)\]` \|$", page, re.M)
    told = {arch: tuple(map(int, channels.split(', '))) for arch, channels in rows}
    dims = {arch: tuple(entry['embed_dims']) for arch, entry in ARCHS.items()}
    assert told == {arch: (*d[1:], d[-1]) for arch, d in dims.items()}


@pytest.mark.parametrize('base', ['dino/r50_dino_12e', 'deformable_detr/r50_ddetr_50e'])
def test_timm_backbones_in_our_detectors(root, tmp_path, base):
    settings = documented(root, tmp_path, 'timm').model
    assert settings.backbone.pretrained
    settings.backbone.update(name='convnext_atto', pretrained=False)
    whole = Config.fromfile(root / 'configs' / f'{base}.py').model
    whole.backbone = settings.backbone
    whole.neck.in_channels = settings.neck.in_channels
    model, losses = step(narrowed(whole))
    assert [conv.conv.in_channels for conv in model.neck.convs] == [80, 160, 320]
    assert 'd0.loss_cls' in losses or 'loss_cls' in losses


def with_neck(**neck):
    """A backbone with a neck, as in any detector."""
    init_default_scope('mmdet')
    backbone = dict(type='MPViT', arch=NARROW, out_indices=(1, 2))
    settings = dict(backbone=backbone, neck=dict(out_channels=8, **neck))
    return nn.ModuleDict({k: MODELS.build(part) for k, part in settings.items()}), settings


def test_a_neck_that_does_not_fit_is_named():
    fpn = dict(type='FPN', num_outs=3)
    for channels in ([24, 32], [32, 40, 40]):
        with pytest.raises(UserError, match=r'x.py: .* is \[.* gives \[32, 40\]') as told:
            check_neck(*with_neck(**fpn, in_channels=channels), 'x.py')
        assert 'auto' not in str(told.value)  # which RetinaNet does not know
    check_neck(*with_neck(**fpn, in_channels=[32, 40]), 'x.py')


def test_a_neck_that_counts_from_the_last_map_and_a_backbone_for_large_images_pass():
    channels = dict(in_channels=[40, 32])
    yolo = dict(type='YOLOV3Neck', num_scales=2, **channels)
    model, settings = with_neck(type='FPN', num_outs=2, **channels)
    model.backbone.forward = lambda image: 1 / 0
    check_neck(model, settings, 'x.py')
    settings['neck'] = dict(yolo, out_channels=[16, 8])
    model = nn.ModuleDict(dict(backbone=Doubling(), neck=MODELS.build(settings['neck'])))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    check_neck(model, settings, 'x.py')
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


class Doubling(nn.Module):
    """Two maps as YOLOv3 wants them, of which the second is half as large."""

    def forward(self, image):
        return torch.zeros(1, 32, 16, 16), torch.zeros(1, 40, 8, 8)


def test_an_own_backbone_of_the_docs(root, monkeypatch, tmp_path):
    page = (root / 'docs' / 'backbones.md').read_text()
    code = re.search(r'<!-- config: own_backbone -->\n```python\n(.*?)```', page, re.DOTALL)[1]
    (tmp_path / 'my_backbone.py').write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    lines = re.search(r'^(custom_imports = .*my_backbone.*\nmodel = .*)\n', page, re.M)[1]
    (tmp_path / 'own.py').write_text(
        f"_base_ = '{root}/configs/deformable_detr/r50_ddetr_50e.py'\n{lines}\n"
    )
    try:
        settings = Config.fromfile(tmp_path / 'own.py').model
        model, _ = step(narrowed(settings))
    finally:
        sys.modules.pop('my_backbone', None)
        MODELS.module_dict.pop('MyBackbone', None)
    assert [conv.conv.in_channels for conv in model.neck.convs] == [32, 32, 32]

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

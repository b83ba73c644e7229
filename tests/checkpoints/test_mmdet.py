"""Checkpoints of mmdet's own Deformable DETR: its detector against ours with the same file."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mmdet
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from random_weights import randomise, rank_padding_last

from mpvit.checkpoints.compatibility import add_neck_biases, check_fit
from mpvit.checkpoints.conversion import convert_file, to_official, to_ours
from mpvit.checkpoints.loading import load_from_local
from mpvit.checkpoints.reading import read
from mpvit.config.reading import load_config
from mpvit.engine.hooks.checkpoint_fit import CheckpointFitHook
from mpvit.errors import UserError
from mpvit.inference.loading import load_detector

THEIRS = Path(mmdet.__file__).parent / '.mim' / 'configs' / 'deformable_detr'
VARIANTS = {
    'r50_ddetr_50e': 'deformable-detr_r50',
    'r50_ddetr_refine_50e': 'deformable-detr-refine_r50',
    'r50_ddetr_two_stage_50e': 'deformable-detr-refine-twostage_r50',
}
SIZES = (64, 96), (80, 64)  # of a padded batch
SMALL = dict(num_queries=30, encoder=dict(num_layers=2), decoder=dict(num_layers=2))


def outputs(model):
    generator = torch.Generator().manual_seed(1)
    images, samples = torch.zeros(2, 3, 80, 96), []
    for image, (h, w) in zip(images, SIZES, strict=True):
        image[:, :h, :w] = torch.randn(3, h, w, generator=generator)
        samples.append(
            DetDataSample(metainfo=dict(img_shape=(h, w), batch_input_shape=images.shape[-2:]))
        )
    with torch.no_grad():
        return model.eval()._forward(images, samples)[:2]


@pytest.fixture(scope='module', params=VARIANTS)
def saved(request, root, tmp_path_factory):
    """Our config, a file as mmdet writes it, and logits and boxes of mmdet's detector."""
    folder = tmp_path_factory.mktemp(request.param)
    stock = Config.fromfile(THEIRS / f'{VARIANTS[request.param]}_16xb2-50e_coco.py')
    stock.merge_from_dict(dict(model=SMALL))
    stock.model.backbone.pop('init_cfg')
    init_default_scope('mmdet')
    model = MODELS.build(stock.model)
    assert type(model).__module__.startswith('mmdet.')
    randomise(model)
    if model.as_two_stage:
        scores = model.bbox_head.cls_branches[-1]
        rank_padding_last(model.memory_trans_norm, model.memory_trans_fc, scores)
    weights = model.state_dict()
    torch.save({'state_dict': weights, 'meta': {}}, folder / 'mmdet.pth')
    config = folder / 'small.py'
    base = root / 'configs' / 'deformable_detr' / f'{request.param}.py'
    config.write_text(f'_base_ = {str(base)!r}\nmodel = {SMALL!r}\n')
    return config, folder / 'mmdet.pth', outputs(model)


def test_their_file_gives_their_outputs(saved):
    config, file, (logits, boxes) = saved
    ours = outputs(load_detector(config, file, fold=False))
    errors = [(ours[0] - logits).abs().max().item(), (ours[1] - boxes).abs().max().item()]
    print(f'{file.parent.name}: logits {errors[0]:.1e}, boxes {errors[1]:.1e}')
    assert errors[0] < 1e-4
    assert errors[1] < 1e-5
    assert logits[-1].std(1).mean() > 0.1


def test_a_run_takes_their_file(saved):
    """mmengine calls the hook with what it read, and loads what the hook leaves."""
    model, lines = load_detector(*saved[:2], fold=False), []
    logger = SimpleNamespace(info=lines.append)
    runner: Any = SimpleNamespace(model=model, logger=logger, _resume=False)
    runner._train_loop = runner._test_loop = None
    content = load_from_local(str(saved[1]))
    CheckpointFitHook().after_load_checkpoint(runner, content)
    assert content['state_dict'].keys() == model.state_dict().keys()
    assert lines == ['4 biases that mmdet leaves out of the neck added (0).']


def test_a_part_of_the_biases_is_not_enough(saved):
    weights = torch.load(saved[1])['state_dict']
    weights['neck.convs.0.conv.bias'] = torch.ones(256)
    model = load_detector(*saved[:2], fold=False).state_dict()
    assert add_neck_biases({'state_dict': weights}, model) is None
    without = {name: value for name, value in model.items() if not name.endswith('conv.bias')}
    assert add_neck_biases({'state_dict': without}, without) is None  # a config of mmdet's own


def test_conversion_adds_the_biases_too(saved, tmp_path):
    weights = torch.load(saved[1])['state_dict']
    official, report = to_official({'state_dict': weights})
    assert 'biases that mmdet leaves out' in ' '.join(report.lines())
    back = to_ours(official)[0]['state_dict']
    assert all(torch.equal(back[name], value) for name, value in weights.items())
    added = [name for name in back if name not in weights]
    assert sorted(added) == sorted(name for name in back if name.endswith('.conv.bias'))
    assert not any(back[name].any() for name in added)
    model = load_config(saved[0]).model
    convert_file(saved[1], tmp_path / 'official.safetensors', to='official', model=model)
    assert read(tmp_path / 'official.safetensors').keys() == official['model'].keys()


def test_names_of_version_2_are_refused():
    with pytest.raises(UserError, match='names of mmdet 2.*mmdet 3'):
        check_fit({'bbox_head.transformer.level_embeds': torch.zeros(1)}, {'w': torch.zeros(1)})

"""The ImageNet recipe against timm's own parts, which the published one was made of."""

import math
import re

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATA_SAMPLERS, HOOKS, PARAM_SCHEDULERS, init_default_scope
from PIL import Image
from timm.data.auto_augment import _RAND_INCREASING_TRANSFORMS, rand_augment_transform
from timm.optim import param_groups_weight_decay
from timm.scheduler import CosineLRScheduler

from mpvit.config.reading import load_config
from mpvit.engine.build import check_data
from mpvit.errors import UserError

# parameters with the head, drop path; as published
SIZES = {
    't': (5_843_736, 0),
    'xs': (10_573_448, 0),
    's': (22_892_400, 0.05),
    'b': (74_845_976, 0.3),
}


@pytest.fixture
def config(root):
    """The config of a size, in its scope."""
    yield lambda size: load_config(root / 'configs' / 'imagenet' / f'mpvit_{size}_in1k_300e.py')
    init_default_scope('mmdet')


def build(config):
    from mmpretrain.registry import MODELS

    init_default_scope(config.default_scope)
    return MODELS.build(config.model)


@pytest.mark.parametrize('size', SIZES)
def test_model_is_the_published_one(config, size):
    model = build(config(size))
    assert (sum(p.numel() for p in model.parameters()), model.backbone.drop_path_rate) == SIZES[
        size
    ]


def test_what_is_decayed_is_what_timm_decays(config):
    settings = config('t')
    model = build(settings)
    wrapper = build_optim_wrapper(model, settings.optim_wrapper)
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    def decayed(groups):
        return {g['weight_decay']: {names[id(p)] for p in g['params']} for g in groups}

    assert decayed(wrapper.optimizer.param_groups) == decayed(
        param_groups_weight_decay(model, weight_decay=0.05)
    )
    assert not wrapper.clip_grad_kwargs


def test_learning_rate_is_that_of_timms_scheduler(config):
    settings = config('t')
    lr = settings.optim_wrapper.optimizer.lr
    ours, theirs = (torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr) for _ in range(2))
    init_default_scope('mmpretrain')
    schedulers = [PARAM_SCHEDULERS.build(dict(s, optimizer=ours)) for s in settings.param_scheduler]
    timms = CosineLRScheduler(theirs, 300, lr_min=1e-5, warmup_t=5, warmup_lr_init=1e-6)
    assert settings.train_cfg.max_epochs == 310
    for epoch in range(310):
        timms.step(epoch)
        assert ours.param_groups[0]['lr'] == pytest.approx(theirs.param_groups[0]['lr'], rel=3e-3)
        ours.step()
        for scheduler in schedulers:
            scheduler.step()


def test_images_are_augmented_as_by_timm(config):
    settings = config('t')
    init_default_scope('mmpretrain')
    from mmpretrain.registry import TRANSFORMS

    steps = {step.type: step for step in settings.train_dataloader.dataset.pipeline}
    assert list(steps)[1:-1] == ['RandomResizedCrop', 'RandomFlip', 'RandAugment', 'RandomErasing']
    ours = TRANSFORMS.build(steps['RandAugment'])
    timms = rand_augment_transform('rand-m9-mstd0.5-inc1', {})
    assert len(ours.transforms if hasattr(ours, 'transforms') else ours.policies) == len(
        _RAND_INCREASING_TRANSFORMS
    )
    assert ours.num_policies == timms.num_layers
    op = timms.ops[0]
    assert (ours.magnitude_level, ours.magnitude_std) == (op.magnitude, op.magnitude_std)
    assert {policy.get('prob', 0.5) for policy in ours.policies} == {op.prob}


def test_a_photo_goes_through_the_training_pipeline(config, tmp_path):
    (tmp_path / 'train').mkdir()
    (tmp_path / 'meta').mkdir()
    photo = Image.effect_mandelbrot((300, 200), (-2, -1, 1, 1), 50).convert('RGB')
    photo.save(tmp_path / 'train' / 'a.JPEG')
    (tmp_path / 'meta' / 'train.txt').write_text('a.JPEG 7\n')
    init_default_scope('mmpretrain')
    from mmpretrain.registry import DATASETS

    dataset = DATASETS.build(dict(config('t').train_dataloader.dataset, data_root=str(tmp_path)))
    seen = [dataset[0] for _ in range(8)]
    assert {(*sample['inputs'].shape, sample['inputs'].dtype) for sample in seen} == {
        (3, 224, 224, torch.uint8)
    }
    assert {int(sample['data_samples'].gt_label) for sample in seen} == {7}
    assert not torch.equal(seen[0]['inputs'], seen[1]['inputs'])


def test_the_rest_of_the_recipe(config):
    settings = config('t')
    model = build(settings)
    mixing = model.data_preprocessor.batch_augments
    assert mixing.probs is None  # evenly
    assert [(type(a).__name__, a.alpha) for a in mixing.augments] == [('Mixup', 0.8), ('CutMix', 1)]
    assert model.head.loss_module.label_smooth_val == 0.1
    average = next(hook for hook in settings.custom_hooks if hook.type == 'EMAHook')
    assert 1 - average.momentum == pytest.approx(0.99996)
    assert HOOKS.get(average.type)
    loader = settings.train_dataloader
    assert settings.auto_scale_lr.base_batch_size == 8 * loader.batch_size == 1024
    sampler = DATA_SAMPLERS.build(dict(loader.sampler, dataset=range(300), seed=0))
    picked = list(sampler)
    assert len(picked) == 300
    assert len(set(picked)) == math.ceil(300 / 3)
    resize, crop = settings.test_dataloader.dataset.pipeline[1:3]
    assert (resize.scale, resize.edge, resize.interpolation) == (256, 'short', 'bicubic')
    assert crop.crop_size == 224


def test_own_images_config_of_the_docs(root, config, tmp_path):
    text = (root / 'docs' / 'pretrain.md').read_text()
    shown = re.search(r'<!-- config: own_images -->\s*```python\n(.*?)```', text, re.DOTALL)[1]
    shown = shown.replace("'./", f"'{root}/configs/imagenet/")
    (tmp_path / 'own.py').write_text(shown.replace('data/animals', str(tmp_path)))
    settings = load_config(tmp_path / 'own.py')
    settings.model.backbone.pop('init_cfg')
    assert build(settings).head.fc.out_features == 3
    for split in ('train', 'val'):
        for name in settings.classes:
            (tmp_path / split / name).mkdir(parents=True)
            Image.new('RGB', (40, 30)).save(tmp_path / split / name / 'a.jpg')
    check_data(settings, 'train', 'val', 'test')
    from mmpretrain.registry import DATASETS

    dataset = DATASETS.build(settings.val_dataloader.dataset)
    labels = [int(dataset[index]['data_samples'].gt_label) for index in range(3)]
    assert labels == [0, 1, 2]


def test_backbone_of_the_digits_is_the_toys(root):
    digits = load_config(root / 'configs' / 'imagenet' / 'mpvit_t_digits.py').model.backbone
    toy = load_config(root / 'configs' / 'deformable_detr' / 'mpvit_t_ddetr_toy.py').model.backbone
    assert digits.arch == toy.arch


def test_what_a_config_imports_may_say_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / 'needy.py').write_text(
        "from mpvit.errors import UserError\nraise UserError('it needs x')\n"
    )
    (tmp_path / 'wants.py').write_text("custom_imports = dict(imports=['needy'])\n")
    with pytest.raises(UserError, match='^it needs x$'):
        load_config(tmp_path / 'wants.py')

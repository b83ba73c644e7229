"""Every config builds, follows the official recipe, and can be inherited from."""

import re
from pathlib import Path

import pytest
from mmdet.registry import DATASETS, METRICS, MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import init_default_scope

from mpvit.config.reading import load_config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'deformable_detr'
LEAVES = sorted(CONFIGS.parent.glob('d*/*.py'))  # of detectors
PUBLISHED = [path for path in LEAVES if path.stem.endswith('_50e')]
# trainable parameters, and tensors per optimizer group (main, backbone, sampling offsets and
# reference points), from the official models
OFFICIAL = {
    'coat_lite_s_ddetr_50e': (31_728_545, (230, 244, 26)),
    'coat_s_ddetr_50e': (33_332_681, (230, 316, 26)),
    'mpvit_s_ddetr_50e': (34_448_361, (230, 642, 26)),
    'r50_ddetr_50e': (39_847_265, (230, 42, 26)),
}
OUTPUT_CLASSES = 91  # of the official models; ours have COCO's 80
Q = 256 + 1  # weights of a class channel


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmdet')


def build_model(config: Config):
    config.model.backbone.pop('init_cfg', None)  # nothing to download
    return MODELS.build(config.model)


@pytest.mark.parametrize('path', LEAVES, ids=lambda p: p.stem)
def test_leaf_builds(path):
    config = load_config(path)
    model = build_model(config)
    assert model.bbox_head.num_classes == (6 if 'toy' in path.stem else 80)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    grouped = sum(len(group['params']) for group in wrapper.optimizer.param_groups)
    assert grouped >= len([p for p in model.parameters() if p.requires_grad])
    for split in ('train', 'val', 'test'):
        dataset = dict(config[f'{split}_dataloader'].dataset, lazy_init=True)
        if 'toy' not in path.stem:  # the toy dataset draws itself when built
            DATASETS.build(dataset)
    assert config.work_dir == f'work_dirs/{path.stem}'
    assert METRICS.get(config.val_evaluator.type)


@pytest.mark.parametrize('path', LEAVES, ids=lambda p: p.stem)
def test_leaf_is_a_delta(path):
    limit = 100 if 'toy' in path.stem else 30
    assert len(path.read_text().splitlines()) <= limit


@pytest.mark.parametrize('name', OFFICIAL)
def test_parameters_and_optimizer_groups_are_the_official_ones(name):
    config = load_config(CONFIGS / f'{name}.py')
    model = build_model(config)
    parameters, groups = OFFICIAL[name]
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    # the class layer (shared by the decoder layers) has 11 channels less than the official one
    assert trainable + (OUTPUT_CLASSES - 80) * Q == parameters
    optimizer = build_optim_wrapper(model, config.optim_wrapper).optimizer
    learning_rates = {id(p): g['lr'] for g in optimizer.param_groups for p in g['params']}
    assert {g['weight_decay'] for g in optimizer.param_groups} == {1e-4}
    counts = [0, 0, 0]
    for parameter_name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        slow = 'sampling_offsets' in parameter_name or 'reference_points' in parameter_name
        group = 1 if parameter_name.startswith('backbone') else 2 if slow else 0
        counts[group] += 1
        expected = 2e-4 if group == 0 else 2e-5
        assert learning_rates[id(parameter)] == pytest.approx(expected), parameter_name
    assert tuple(counts) == groups


@pytest.mark.parametrize('path', PUBLISHED, ids=lambda p: p.stem)
def test_recipe_is_the_official_one(path):
    config = load_config(path)
    assert config.train_cfg.max_epochs == 50
    assert config.param_scheduler[0].milestones == [40]
    assert config.optim_wrapper.optimizer.weight_decay == 1e-4
    assert config.optim_wrapper.clip_grad.max_norm == 0.1
    assert config.train_dataloader.batch_size == 2
    assert config.val_dataloader.batch_size == (1 if path.stem.startswith('coat') else 2)
    assert config.train_dataloader.drop_last
    assert 'batch_sampler' not in config.train_dataloader
    assert config.auto_scale_lr == dict(
        enable=True, base_batch_size=32 if path.stem.startswith('r50') else 16, rule='linear'
    )
    assert config.model.neck.bias
    assert config.model.num_queries == 300
    for split in ('train', 'val'):
        dataset = config[f'{split}_dataloader'].dataset
        assert dataset.type == 'OfficialCocoDataset'
        kinds = re.findall(r"'(?:resize_type|type)': '(\w*Resize)'", str(dataset.pipeline))
        assert set(kinds) - {'RandomChoiceResize'} == {'ShortSideResize'}
        assert dataset.pipeline[0].imdecode_backend == 'pillow'
    assert config.model.bbox_head.type == 'OfficialDeformableDETRHead'
    # pipelines and evaluators of validation and test agree
    assert config.val_dataloader == config.test_dataloader
    assert config.val_evaluator == config.test_evaluator


def test_refinement_and_two_stage_variants():
    plain, refine, two_stage = (
        load_config(CONFIGS / f'mpvit_s_ddetr_{variant}50e.py').model
        for variant in ('', 'refine_', 'two_stage_')
    )
    assert (plain.with_box_refine, plain.as_two_stage) == (False, False)
    assert (refine.with_box_refine, refine.as_two_stage) == (True, False)
    assert (two_stage.with_box_refine, two_stage.as_two_stage) == (True, True)
    assert plain.backbone == refine.backbone == two_stage.backbone


def test_coat_is_the_published_one():
    lite, small = (
        load_config(CONFIGS / f'coat_{size}_ddetr_50e.py').model for size in ('lite_s', 's')
    )
    assert (lite.backbone.arch, lite.backbone.drop_path_rate) == ('lite_small', 0.0)
    assert (small.backbone.arch, small.backbone.drop_path_rate) == ('small', 0.2)


def documented_config(root, tmp_path, page: str, name: str) -> Config:
    """A config shown in the docs, loaded as if it stood beside the leaves."""
    text = (root / 'docs' / page).read_text()
    found = re.search(rf'<!-- config: {name} -->\s*```python\n(.*?)```', text, re.DOTALL)
    assert found, f'docs/{page} shows no config {name}'
    bases = str(CONFIGS).replace('\\', '/')
    path = tmp_path / f'{name}.py'
    path.write_text(found[1].replace("'./", f"'{bases}/"))
    return load_config(path)


def test_own_data_config_of_the_docs(root, tmp_path):
    config = documented_config(root, tmp_path, 'data.md', 'own_data')
    model = build_model(config)
    for split in ('train', 'val', 'test'):
        dataset = config[f'{split}_dataloader'].dataset
        built = DATASETS.build(dict(dataset, lazy_init=True))
        assert len(built.metainfo['classes']) == model.bbox_head.num_classes != 80
        assert 'coco' not in built.ann_file
        if split != 'train':
            assert config[f'{split}_evaluator'].ann_file == built.ann_file
    assert config.model.backbone.arch == 'small'


def test_own_arch_config_of_the_docs(root, tmp_path):
    config = documented_config(root, tmp_path, 'extend.md', 'own_arch')
    model = build_model(config)
    channels = [conv.conv.in_channels for conv in model.neck.convs]
    assert channels == [model.backbone.out_channels[i] for i in model.backbone.out_indices]
    assert model.backbone.stages[0].paths[0].with_cp


def test_ema_config_of_the_docs(root, tmp_path):
    hooks = documented_config(root, tmp_path, 'train.md', 'ema').custom_hooks
    base = load_config(CONFIGS / 'mpvit_s_ddetr_50e.py').custom_hooks
    assert [hook.type for hook in hooks] == [*(hook.type for hook in base), 'EMAHook']
    assert ROOT_MODELS.get(hooks[-1].ema_type)


def test_own_schedule_config_of_the_docs(root, tmp_path):
    config = documented_config(root, tmp_path, 'train.md', 'own_schedule')
    wrapper = build_optim_wrapper(build_model(config), config.optim_wrapper)
    assert config.train_cfg.max_epochs == config.param_scheduler[0].end != 50
    assert max(g['lr'] for g in wrapper.optimizer.param_groups) != 2e-4
    assert wrapper._accumulative_counts > 1

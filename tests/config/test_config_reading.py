"""Reading configs and overrides: what is accepted, and what each mistake prints."""

import sys

import pytest

from mpvit.config.reading import leaf_datasets, load_config, parse_options
from mpvit.errors import UserError


@pytest.fixture(scope='module')
def toy_config(root):
    return root / 'configs' / 'deformable_detr' / 'mpvit_t_ddetr_toy.py'


def test_overrides_are_typed_and_applied(toy_config):
    config = load_config(
        toy_config,
        [
            'train_dataloader.batch_size=4',
            'model.backbone.with_cp=True',  # not in the config, but the backbone knows it
            'model.backbone.out_indices=(1,2)',
            'load_from=some.pth',
            'param_scheduler.1.T_max=3',
        ],
    )
    assert config.train_dataloader.batch_size == 4
    assert config.model.backbone.with_cp is True
    assert config.model.backbone.out_indices == (1, 2)
    assert config.load_from == 'some.pth'
    assert config.param_scheduler[1].T_max == 3


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('trian_cfg.max_epochs=3', 'train_cfg'),
        ('nonsense=3', "'nonsense'"),
        ('train_dataloader.batch_sise=3', 'batch_size'),
        ('optim_wrapper.optimizer.lrr=1', 'lr'),
        ('train_cfg.max_epochs', 'key=value'),
        ('=3', 'key=value'),
        ('param_scheduler.7.T_max=3', 'param_scheduler'),
        ('train_cfg.max_epochs.deep=3', 'train_cfg.max_epochs'),
        ('test_dataloader.dataset.pipeline.1.scale.1=3', 'does not fit'),
        ('model.backbone.out_indices=(1,2', 'model.backbone.out_indices'),
    ],
)
def test_misspelt_overrides_are_refused(toy_config, option, message):
    with pytest.raises(UserError) as caught:
        load_config(toy_config, [option])
    assert message in str(caught.value)
    assert '\n' not in str(caught.value)


def test_no_scope_is_refused(toy_config, tmp_path):
    config = tmp_path / 'mine.py'
    config.write_text(f'_base_ = {str(toy_config)!r}\ndefault_scope = None\n')
    with pytest.raises(UserError, match=r'mine\.py: default_scope'):
        load_config(config)


def test_unknown_config_names_the_nearest(root):
    with pytest.raises(UserError, match=r'/mpvit_s_ddetr_50e\.py'):
        load_config(root / 'configs' / 'deformable_detr' / 'mpvit_s_ddetr_50ep.py')
    with pytest.raises(UserError, match='zzzzzz.py'):
        load_config('nowhere/zzzzzz.py')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('model = dict(', 'SyntaxError'),
        ("_base_ = './missing.py'", 'FileNotFoundError'),
        ('x = 1 / 0', 'ZeroDivisionError'),
        ("custom_imports = dict(imports=['no_such_module'])", "'no_such_module'; .* beside"),
    ],
)
def test_broken_config_says_where_and_why(tmp_path, text, message):
    path = tmp_path / 'broken.py'
    path.write_text(text)
    with pytest.raises(UserError, match=f'broken.py: .*{message}'):
        load_config(path)


def test_work_dir_comes_from_the_command_line_the_config_or_its_name(toy_config, tmp_path):
    assert load_config(toy_config).work_dir == 'work_dirs/mpvit_t_ddetr_toy'
    assert load_config(toy_config, work_dir='there').work_dir == 'there'
    path = tmp_path / 'mine.py'
    path.write_text(f"_base_ = '{toy_config}'\nwork_dir = 'here'")
    assert load_config(path).work_dir == 'here'


def test_parse_options_keeps_strings_with_equal_signs():
    assert parse_options(['a.b=x=y', 'c=1,2']) == {'a.b': 'x=y', 'c': [1, 2]}


def test_leaf_datasets_looks_into_wrappers():
    leaves = [dict(type='A'), dict(type='B'), dict(type='C')]
    nested = dict(
        type='RepeatDataset',
        dataset=dict(
            type='ConcatDataset', datasets=[leaves[0], dict(type='Wrap', dataset=leaves[1])]
        ),
    )
    assert list(leaf_datasets(nested)) == leaves[:2]
    assert list(leaf_datasets(leaves[2])) == leaves[2:]


def test_modules_beside_a_config_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'path', [*sys.path])
    (tmp_path / 'module_beside.py').write_text('found = 1')
    (tmp_path / 'mine.py').write_text("custom_imports = dict(imports=['module_beside'])\n")
    load_config(tmp_path / 'mine.py')
    assert sys.modules.pop('module_beside').found == 1

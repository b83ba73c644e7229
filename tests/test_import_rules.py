"""Who may import whom: downwards only. CONTRIBUTING.md explains the layers."""

import ast
from pathlib import Path

import pytest

LAYERS = {  # what each part of mpvit may import of mpvit
    'errors': set(),
    'version': set(),
    'colours': set(),
    'ops': {'ops', 'errors'},
    'arguments': {'arguments', 'errors'},
    'models': {'models', 'ops', 'errors'},
    'optional': {'errors'},
    'deferred_imports': set(),
    'checkpoints': {'checkpoints', 'errors'},
    'datasets': {'datasets', 'optional', 'errors'},
    'engine': {'engine', 'checkpoints', 'datasets', 'models', 'ops', 'errors'},
    'config': {'arguments', 'errors'},
    'analysis': {'analysis', 'datasets', 'engine', 'errors'},
    'plots': {'plots', 'analysis', 'colours', 'errors'},
    'report': {'report', 'plots', 'analysis', 'colours', 'datasets', 'errors', 'version'},
    'run_record': {'analysis', 'version'},
    'preflight': {'config', 'datasets', 'errors'},
    'data_config': {'colours', 'config', 'datasets', 'errors'},
    'runner': {
        'preflight',
        'tracking',
        'exported',
        'arguments',
        'config',
        'data_config',
        'engine',
        'datasets',
        'checkpoints',
        'ops',
        'run_record',
        'errors',
    },
    'inference': {
        'inference',
        'colours',
        'exported',
        'arguments',
        'checkpoints',
        'config',
        'engine',
        'optional',
        'errors',
    },
    'sampling_points': {'colours', 'inference', 'engine', 'ops', 'errors'},
    'tracking': {'arguments', 'engine'},
    'browse': {'browse_sheets', 'config', 'data_config', 'datasets', 'runner', 'errors'},
    'browse_sheets': {'colours'},
    'exported': {'optional', 'errors'},
    'export': {'export', 'exported', 'inference', 'ops', 'errors', 'version'},
    'model_info': {'model_info', 'config', 'engine', 'ops', 'errors'},
    'conversion': {'arguments', 'checkpoints', 'config', 'engine', 'errors'},
    'demo': {'config', 'runner', 'plots', 'report', 'engine', 'datasets', 'errors'},
    'app': {
        'app',
        'checkpoints',
        'colours',
        'engine',
        'inference',
        'sampling_points',
        'optional',
        'errors',
    },
    'registry': set(),
    '__init__': {
        'config',
        'deferred_imports',
        'ops',
        'datasets',
        'engine',
        'models',
        'registry',
        'version',
    },
}
OUTSIDE = {  # which heavy packages each part may import; parts not listed may import any
    'errors': set(),
    'version': set(),
    'colours': set(),
    'ops': {'torch', 'torchvision', 'numba', 'llvmlite', 'triton'},
    'arguments': set(),
    'optional': set(),
    'deferred_imports': set(),
    'models': {'torch', 'torchvision', 'timm', 'mmcv', 'mmengine', 'mmdet'},
    'checkpoints': {'torch'},
    'config': {'mmengine'},
    'browse_sheets': {'matplotlib', 'PIL'},
    'registry': {'mmdet', 'mmengine'},
    'analysis': {'mmengine'},
    'plots': {'matplotlib', 'PIL'},
    'report': {'matplotlib', 'PIL'},
}
HEAVY = {'torch', 'torchvision', 'timm', 'mmcv', 'mmengine', 'mmdet', 'matplotlib', 'PIL'}
HEAVY |= {'numba', 'llvmlite', 'triton'}
WITHOUT_MMDET = ['mpvit/checkpoints/', 'mpvit/datasets/check/', 'mpvit/datasets/toy.py']
WITHOUT_MMDET += ['mpvit/datasets/layout.py', 'mpvit/datasets/layout_search.py']
WITHOUT_MMDET += ['mpvit/datasets/conversion.py']
PACKAGE = Path(__file__).resolve().parent.parent / 'mpvit'
FILES = sorted(PACKAGE.rglob('*.py'))


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: relative import'
            names |= {f'{node.module}.{alias.name}' for alias in node.names}
    return names


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downwards(path):
    part = part_of(path)
    assert part in LAYERS, f'give {part} a place in LAYERS'
    names = imported(path)
    own = {name.split('.')[1] for name in names if name.split('.')[0] == 'mpvit'}
    assert own <= LAYERS[part], f'{part} must not import {own - LAYERS[part]}'
    if part in OUTSIDE:
        outside = {name.split('.')[0] for name in names} & HEAVY
        assert outside <= OUTSIDE[part], f'{part} must not import {outside - OUTSIDE[part]}'


def test_only_the_bridge_touches_mmcvs_internals():
    for path in FILES:
        if path.name != 'mmcv_bridge.py':
            assert 'mmcv._ext' not in path.read_text().replace('``mmcv._ext``', ''), path


@pytest.mark.parametrize('place', WITHOUT_MMDET)
def test_parts_that_must_work_without_mmdet(place):
    for path in FILES:
        if str(path.relative_to(PACKAGE.parent)).startswith(place):
            assert not any(name.split('.')[0] == 'mmdet' for name in imported(path)), path


def test_models_take_only_the_detector_from_mmdet():
    for path in (PACKAGE / 'models').glob('*.py'):
        used = {name for name in imported(path) if name.startswith('mmdet')}
        assert used <= {
            'mmdet.registry.MODELS',
            'mmdet.models.DeformableDETR',
            'mmdet.models.DeformableDETRHead',
            'mmdet.models.losses.QualityFocalLoss',
            'mmdet.models.task_modules.assigners.BBoxL1Cost',
            'mmdet.registry.TASK_UTILS',
            'mmdet.utils.reduce_mean',
        }, path


def test_tools_import_nothing_heavy_before_arguments_are_parsed():
    for path in (PACKAGE.parent / 'tools').glob('*.py'):
        top = ast.parse(path.read_text()).body
        names = [n.name for node in top if isinstance(node, ast.Import) for n in node.names]
        names += [node.module for node in top if isinstance(node, ast.ImportFrom)]
        assert not {name.split('.')[0] for name in names} & {*HEAVY, 'mpvit'}, path

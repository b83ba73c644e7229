"""What an evaluation leaves beside its numbers, so that they can be explained later."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict

from mpvit import __version__
from mpvit.engine.run_folder import data_of

_PACKAGES = ('torch', 'mmengine', 'mmcv', 'mmdet')
_FORKS = {'mmengine': 'onedl-mmengine', 'mmcv': 'onedl-mmcv', 'mmdet': 'onedl-mmdetection'}


def keep_detections(cfg: Config) -> None:
    """Have the detections written to ``detections.bbox.json`` in the work folder.

    Args:
        cfg: Complete config, changed in place; an evaluator that writes elsewhere stays so.
    """
    evaluator = _box_evaluator(cfg)
    if evaluator is not None and not evaluator.get('outfile_prefix'):
        evaluator.outfile_prefix = os.path.join(cfg.work_dir, 'detections')


def evaluated_data(cfg: Config) -> dict[str, Any]:
    """Where the data and the detections of an evaluation are, with absolute paths.

    Args:
        cfg: Complete config.
    """
    data = data_of(cfg, 'test')
    evaluator = _box_evaluator(cfg)
    if evaluator is not None:
        data['detections'] = f'{evaluator.outfile_prefix}.bbox.json'
    paths = ('annotations', 'images', 'detections')
    return data | {key: os.path.abspath(data[key]) for key in paths if key in data}


def _box_evaluator(cfg: Config) -> ConfigDict | None:
    evaluators = cfg.test_evaluator
    for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
        if evaluator.get('type') in ('CocoBoxMetric', 'CocoMetric'):
            return evaluator
    return None


def software() -> dict[str, str]:
    """Versions, the revision of the code where it is in a git checkout, and the device."""
    versions = {name: _version(name) for name in _PACKAGES}
    found = {name: text for name, text in versions.items() if text}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    revision = _revision()
    return dict(
        mpvit=__version__,
        **(dict(revision=revision) if revision else {}),
        python=platform.python_version(),
        **found,
        device=device,
    )


def software_note() -> str:
    """The same as a line for the log, which `mpvit.engine.training_log` reads again."""
    return 'Software: ' + ', '.join(f'{name} {text}' for name, text in software().items())


def _version(name: str) -> str:
    for candidate in (name, _FORKS.get(name, name)):
        try:
            return version(candidate)
        except PackageNotFoundError:
            continue
    return ''


def _revision() -> str:
    """The commit, with ``-dirty`` where files were changed since; empty outside of a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / '.git').exists():
        return ''  # installed, perhaps inside some other repository
    command = ['git', 'describe', '--always', '--dirty', '--abbrev=12']
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return ''
    return done.stdout.strip()


def _processor() -> str:
    """The name of the CPU, as far as the system tells."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(': ')[2] for line in lines if line.startswith('model name')]
    return f'CPU ({names[0] if names else platform.machine()})'

"""What the tests of interrupted trainings share: interrupting them, and comparing checkpoints."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from runs import environment

from mpvit.checkpoints.reading import read

# Drop path, flips, sizes, an average of the weights: all that draws random numbers or has a state.
CONFIG = """
_base_ = '{base}'
model = dict(backbone=dict(drop_path_rate=0.3))
train_pipeline = [
    {{{{_base_.load_image}}}},
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomChoiceResize', scales=[(96, 96), (128, 128)], keep_ratio=True),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='EMAHook', ema_type='SharedWeightsEMA', momentum=0.1),
    dict(type='InterruptHook'),
]
"""

ORDER = 'INTERRUPT'  # in the environment: what another process tells `InterruptHook`


class Crash(Exception):
    """As if the process had been killed: nothing is saved."""


@HOOKS.register_module(force=True)
class InterruptHook(Hook):
    """Interrupts a training at a moment, or tells a listener which places it passes.

    Another process gives the moment in `ORDER`: ``STAGE STEP RANK ACT FILE``, any rank where that
    is ``-``. At the moment FILE is made. ACT is the name of a signal that the process gets; or
    'wait', until the training is asked to pause; or 'stay', until it is killed. Processes that
    torchrun starts again leave it be.
    """

    priority = 'LOWEST'
    moment: tuple[str, int, str] | None = None  # stage, step, name of a signal or 'crash'
    listener: Callable[[str], None] | None = None

    def _act(self, stage, step):
        if InterruptHook.listener is not None:
            InterruptHook.listener(stage)
        if InterruptHook.moment and InterruptHook.moment[:2] == (stage, step):
            act = InterruptHook.moment[2]
            InterruptHook.moment = None
            if act == 'crash':
                raise Crash
            os.kill(os.getpid(), getattr(signal, act))
        if os.environ.get('TORCHELASTIC_RESTART_COUNT') == '0' and ORDER in os.environ:
            self._obey(stage, step, *os.environ[ORDER].split())

    def _obey(self, stage, step, at_stage, at_step, rank, act, file):
        if (stage, str(step)) != (at_stage, at_step) or rank not in ('-', os.environ['RANK']):
            return
        Path(file).touch()
        if act.startswith('SIG'):
            os.kill(os.getpid(), getattr(signal, act))
        while act == 'stay' or not any(getattr(hook, 'request', 0) for hook in self.runner.hooks):
            time.sleep(0.05)

    def before_run(self, runner):
        self.runner = runner
        self._act('start', 0)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self._act('begin', runner.iter)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._act('train', runner.iter + 1)

    def before_save_checkpoint(self, runner, checkpoint):
        self._act('save', runner.iter)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._act('val', runner.iter)


def write_config(folder: Path, base: Path) -> Path:
    """The config of these trainings, over the tiny one."""
    path = folder / 'interrupted.py'
    path.write_text(CONFIG.format(base=base))
    return path


def driven(root: Path, folder: Path, kills: int, seed: int, *options: str) -> dict:
    """What tests/kill_driver.py tells of a training of the config in a folder, and its logs."""
    result = subprocess.run(
        [sys.executable, root / 'tests/kill_driver.py', folder / 'interrupted.py', folder]
        + [str(kills), str(seed), *options],
        cwd=root,
        # which looks for GPUs without starting CUDA, so that it may fork
        env=environment(root, PYTORCH_NVML_BASED_CUDA_CHECK='1'),
        capture_output=True,
        text=True,
        check=False,
        timeout=7200,
    )
    logs = ''.join(path.read_text()[-3000:] for path in folder.glob('*.log'))
    assert result.returncode == 0, result.stderr[-3000:] + logs
    return dict(json.loads(result.stdout.splitlines()[-1]), logs=logs)


def difference(one, other, place='') -> list[str]:
    """Places in two nested structures that are not the same, bit for bit."""
    if isinstance(one, torch.Tensor):
        same = isinstance(other, torch.Tensor) and torch.equal(one, other)
    elif isinstance(one, np.ndarray):
        same = np.array_equal(one, other)
    elif isinstance(one, dict):
        if one.keys() != other.keys():
            return [f'{place}: {one.keys() ^ other.keys()}']
        return [d for key in one for d in difference(one[key], other[key], f'{place}.{key}')]
    elif isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return [f'{place}: {len(one)} and {len(other)}']
        pairs = enumerate(zip(one, other, strict=True))
        return [d for i, pair in pairs for d in difference(*pair, f'{place}.{i}')]
    else:
        same = one == other
    return [] if same else [place]


def differences(path: Path, other: Path) -> list[str]:
    """What differs between two checkpoints, other than times and places."""
    first, second = read(path), read(other)
    found = [
        place
        for key in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
        if key in first or key in second
        for place in difference(first[key], second[key], key)
    ]
    logs = [checkpoint['message_hub']['log_scalars'] for checkpoint in (first, second)]
    for name in ('train/loss', 'train/lr', 'train/grad_norm', 'val/coco/bbox_mAP'):
        if name in logs[0] or name in logs[1]:
            histories = [log[name]._log_history for log in logs]
            found += difference(*histories, name)
    info = [c['message_hub']['runtime_info'] for c in (first, second)]
    for name in ('best_score', 'keep_ckpt_ids'):
        found += difference(info[0].get(name), info[1].get(name), name)
    meta = [{key: c['meta'][key] for key in ('epoch', 'iter', 'seed')} for c in (first, second)]
    return found + difference(*meta, 'meta')

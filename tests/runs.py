"""What tests of whole runs share: their logs, how they end, and waiting for processes."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import yapf.yapflib.yapf_api


def leave_configs_as_they_are():
    """Do without yapf's layout of configs in this process; the text means the same.

    It takes a second for every training.
    """
    yapf.yapflib.yapf_api.FormatCode = lambda text, **style: (text, True)


def forget_earlier_runs() -> None:
    """Loggers and visualizers are global by name; those of an earlier run write to its places."""
    from mmdet.visualization import DetLocalVisualizer
    from mmengine.logging import MMLogger

    MMLogger._instance_dict.clear()
    DetLocalVisualizer._instance_dict.clear()


def log_of(work):
    """All logs of a work folder, in order."""
    return '\n'.join(path.read_text() for path in sorted(work.glob('*/*.log')))


def metrics_of(work):
    """The numbers of the last evaluation."""
    return json.loads((work / 'metrics.json').read_text())['metrics']


def free_port():
    """A port of this machine that nobody uses."""
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]


def wait_for(condition, what, seconds=1800):
    """Wait until a condition holds; a busy machine takes its time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f'{what} did not come'
        time.sleep(0.1)


def train_as_two(root, config, work, options, **variables):
    """Train in two processes that are both number 0 of their machine, as if on one GPU each.

    Returns:
        Their statuses, and what they said.
    """
    cluster = dict(WORLD_SIZE='2', LOCAL_RANK='0', MASTER_ADDR='127.0.0.1')
    cluster['MASTER_PORT'] = str(free_port())
    command = [sys.executable, '-m', 'mpvit', 'train', config, '--work-dir', work]
    logs = [work.with_name(f'{work.name}-{rank}.txt') for rank in range(2)]
    processes = []
    for rank, log in enumerate(logs):
        with log.open('w') as file:
            process = subprocess.Popen(
                [*command, '--launcher', 'pytorch', '--cfg-options', *options],
                cwd=root,
                env={**environment(root, **variables), **cluster, 'RANK': str(rank)},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        processes.append(process)
    statuses = [process.wait(1800) for process in processes]
    return statuses, '\n'.join(log.read_text()[-3000:] for log in logs)


def environment(root, **further):
    """Variables of a process that is started as a user does, with this Python."""
    launcher = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')
    return {
        **{key: value for key, value in os.environ.items() if key not in launcher},
        'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',
        'PYTHONPATH': f'{root}{os.pathsep}{root / "tests"}',
        'VIRTUAL_ENV': sys.prefix,
        'OMP_NUM_THREADS': '1',
        **further,
    }

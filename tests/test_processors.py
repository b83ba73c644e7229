"""How many threads a process takes for itself."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mpvit import processors


def _stat(busy: dict[int, float], seconds: float) -> str:
    """What the system says after so many seconds in which processors were busy for a part."""
    tick = os.sysconf('SC_CLK_TCK')
    rows = ['cpu  0 0 0 0 0 0 0 0 0 0']
    for cpu in range(4):
        used = busy.get(cpu, 0.0) * seconds
        rows.append(f'cpu{cpu} {int(used * tick)} 0 0 {int((seconds - used) * tick)} 0 0 0 0 0 0')
    return '\n'.join([*rows, 'intr 1 2 3'])


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with four processors whose load the test writes."""
    monkeypatch.setattr(processors, '_STAT', tmp_path / 'stat')
    monkeypatch.setattr(processors, '_CGROUP', tmp_path)
    monkeypatch.setattr(processors, '_start', None)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(os, 'times', lambda: (0.0, 0.0, 0.0, 0.0, 0.0))
    monkeypatch.setenv('GOMP_SPINCOUNT', '5')

    def run(busy, own=0.0, seconds=8.0):
        (tmp_path / 'stat').write_text(_stat({}, 0.0))
        processors.watch()
        (tmp_path / 'stat').write_text(_stat(busy, seconds))
        monkeypatch.setattr(os, 'times', lambda: (own, 0.0, 0.0, 0.0, 0.0))
        return processors.threads()

    return run


@pytest.mark.parametrize(
    ('busy', 'own', 'expected'),
    [
        ({}, 0.0, 4),
        ({0: 0.9}, 7.2, 4),  # that was this process itself
        ({0: 1.0, 1: 0.95}, 7.6, 3),
        ({0: 1.0, 1: 1.0, 2: 0.7}, 8.0, 2),
        (dict.fromkeys(range(4), 1.0), 4.0, 1),
        ({0: 0.3}, 0.0, 4),  # a blip
    ],
)
def test_a_thread_less_for_each_busy_processor(machine, busy, own, expected):
    assert machine(busy, own) == expected


def test_too_short_a_time_tells_nothing(machine):
    assert machine(dict.fromkeys(range(4), 1.0), seconds=0.2) == 4


def test_other_processors_are_not_ours(machine, monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {2, 3})
    assert machine({0: 1.0, 1: 1.0}) == 2
    assert machine({2: 1.0}) == 1


@pytest.mark.parametrize(
    ('files', 'expected'),
    [
        ({'cpu.max': '150000 100000\n'}, 2),
        ({'cpu.max': '50000 100000\n'}, 1),
        ({'cpu.max': 'max 100000\n'}, 4),
        ({'cpu/cpu.cfs_quota_us': '300000\n', 'cpu/cpu.cfs_period_us': '100000\n'}, 3),
        ({'cpu/cpu.cfs_quota_us': '-1\n', 'cpu/cpu.cfs_period_us': '100000\n'}, 4),
        ({'cpu.max': 'nonsense\n'}, 4),
    ],
)
def test_the_quota_of_a_container(machine, tmp_path, files, expected):
    (tmp_path / 'cpu').mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert processors.available() == expected
    assert machine({}) == expected


def test_a_system_without_the_files(monkeypatch, tmp_path):
    monkeypatch.setattr(processors, '_STAT', tmp_path / 'none')
    monkeypatch.setattr(processors, '_CGROUP', tmp_path)
    monkeypatch.setenv('GOMP_SPINCOUNT', '5')
    processors.watch()
    assert processors.threads() == processors.available() >= 1


def test_a_real_neighbour_is_seen():
    spin = [sys.executable, '-c', 'while True: pass']
    cpu = min(os.sched_getaffinity(0))
    code = (
        'import os, time; from mpvit import processors\n'
        f'os.sched_setaffinity(0, {{{cpu}}}); processors.watch(); start = processors._start\n'
        'time.sleep(1); now = processors._clock()\n'
        'print((now[1] - start[1]) / (now[0] - start[0]))'
    )
    neighbour = subprocess.Popen(spin, preexec_fn=lambda: os.sched_setaffinity(0, {cpu}))
    try:
        time.sleep(0.1)
        out = subprocess.run(
            [sys.executable, '-c', code],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[1],
        )
    finally:
        neighbour.kill()
        neighbour.wait()
    assert float(out.stdout) > 0.8


@pytest.mark.parametrize(('resume', 'variable', 'expected'), [
    ('auto', None, [3]),
    ('auto', '1', []),  # said by the user
    (False, None, []),
])  # fmt: skip
def test_a_resumed_training_keeps_its_threads(tmp_path, monkeypatch, resume, variable, expected):
    import torch
    from mmengine.config import Config

    from mpvit.engine import train

    (tmp_path / 'run.json').write_text('{"threads": 3}')
    asked = []
    monkeypatch.setattr(torch, 'set_num_threads', asked.append)
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    if variable:
        monkeypatch.setenv('OMP_NUM_THREADS', variable)
    train._keep_threads(Config(dict(work_dir=str(tmp_path), resume=resume)))
    assert asked == expected

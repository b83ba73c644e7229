"""Trainings that are killed, at random places and from outside, and the scripts' signals."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import interruptions
import pytest
from interruptions import differences
from runs import environment, free_port, wait_for

from mpvit.checkpoints.reading import read


@pytest.mark.parametrize(
    ('kills', 'seed'),
    # tests/engine/test_resume.py interrupts at chosen moments, inside one process
    [(1, 235), pytest.param(50, 0, marks=pytest.mark.slow)],
    ids=['1', '50'],
)
def test_killed_at_random_places(root, tiny, tmp_path, kills, seed):
    interruptions.write_config(tmp_path, tiny[0])
    options = [
        *tiny[1],
        'train_dataloader.num_workers=1',
        'train_cfg.max_epochs=1000',
        'train_cfg.val_interval=2',
    ]
    told = interruptions.driven(root, tmp_path, kills, seed, *options)
    logs = told['logs']
    print(told['steps'], told['ends'])
    assert (told['last'], told['whole'], told['torn']) == (['0', '1'], ['0', '1'], []), logs
    for place, _, sent, begun, end in told['ends']:
        assert begun, f'{told}: a place was not reached'
        if place == 'worker':  # the training process says so
            assert end == '1'
        elif sent == 'SIGKILL' or begun == '1':
            assert end == ('0' if sent == 'SIGTERM' else sent)
        else:  # a SIGTERM while a training is built ends the program, later ones pause it
            assert end in ('SIGTERM', '0')
    files = [
        tmp_path / run / name for run, name in zip(('killed', 'whole'), told['names'], strict=True)
    ]
    assert differences(*files) == []
    assert not list((tmp_path / 'killed').glob('.mpvit-*'))


WORKER = """
import os, signal, sys, time
def pause(*_):
    os.write(1, b'paused\\n')
    sys.exit(0)
{handle}
os.write(1, b'ready\\n')
time.sleep(60)
"""
TORCHRUN = """
import os, signal, subprocess, sys
command = [sys.executable, {worker!r}]
workers = [subprocess.Popen(command, start_new_session=True) for _ in range(2)]
signal.signal(signal.SIGTERM, lambda *_: [os.killpg(w.pid, signal.SIGTERM) for w in workers])
sys.exit(max(abs(worker.wait()) for worker in workers))
"""


def start_script(root, folder, handle):
    """dist_train.sh with stand-ins for torchrun and the training processes."""
    (folder / 'worker.py').write_text(WORKER.format(handle=handle))
    (folder / 'torchrun.py').write_text(TORCHRUN.format(worker=str(folder / 'worker.py')))
    (folder / 'python').write_text(f'#!/bin/sh\nexec {sys.executable} {folder}/torchrun.py "$@"\n')
    (folder / 'python').chmod(0o755)
    script = subprocess.Popen(
        [root / 'tools' / 'dist_train.sh', 'c.py', '2'],
        env=environment(root, PATH=f'{folder}:{os.environ["PATH"]}'),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert [script.stdout.readline() for _ in range(2)] == ['ready\n'] * 2
    return script


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGUSR1', 'SIGINT', 'SIGHUP'])
def test_scripts_pass_signals_on_and_wait(root, tmp_path, name):
    script = start_script(root, tmp_path, 'signal.signal(signal.SIGUSR1, pause)')
    script.send_signal(getattr(signal, name))
    assert script.wait(20) == 0
    assert script.stdout.read() == 'paused\npaused\n'


def test_a_second_signal_to_a_script_stops_at_once(root, tmp_path):
    script = start_script(root, tmp_path, '')
    script.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        script.wait(1.5)
    script.send_signal(signal.SIGTERM)
    assert script.wait(20) != 0


def test_scripts_return_the_status_of_a_failed_training(root, tmp_path):
    script = start_script(root, tmp_path, r"os.write(1, b'ready\n'); sys.exit(7)")
    assert script.wait(20) == 7


def descendants(pid):
    """Processes below one, with their command lines, from the top down."""
    found = []
    for place in Path('/proc').glob('[0-9]*'):
        try:
            parent = (place / 'stat').read_text().rpartition(')')[2].split()[1]
            command = (place / 'cmdline').read_text()
        except OSError:
            continue
        if parent == str(pid):
            found += [(int(place.name), command), *descendants(place.name)]
    return found


def cut_off(process):
    """Kill a process and all below it, which run in sessions of their own."""
    for pid in [process.pid, *(pid for pid, _ in descendants(process.pid))]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope='module')
def two(root, tiny, tmp_path_factory):
    """Start trainings of four epochs by two processes; ``whole`` is one without any fault."""
    folder = tmp_path_factory.mktemp('two')
    config = interruptions.write_config(folder, tiny[0])
    imports = "custom_imports = dict(imports=['mpvit.register', 'interruptions'])\n"
    config.write_text(config.read_text().replace('batch_size=2', 'batch_size=1') + imports)
    options = [*tiny[1], 'train_cfg.max_epochs=4', 'default_hooks.logger.interval=1']
    started = []

    def start(work, *flags, processes='2', **variables):
        with work.with_suffix('.txt').open('a') as output:
            process = subprocess.Popen(
                ['tools/dist_train.sh', config, processes, '--work-dir', work, *flags]
                + ['--cfg-options', *options],
                cwd=root,
                env=environment(root, **variables),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        return process

    whole = folder / 'whole'
    assert start(whole).wait(1800) == 0, whole.with_suffix('.txt').read_text()[-3000:]
    yield SimpleNamespace(start=start, whole=whole / 'epoch_4.pth')
    for process in started:
        cut_off(process)


@pytest.mark.slow
def test_two_processes_paused_killed_and_restarted(two, tmp_path):
    work, reached = tmp_path / 'work', tmp_path / 'reached'

    def output():
        return work.with_suffix('.txt').read_text()

    script = two.start(work, INTERRUPT=f'train 2 0 wait {reached}')
    wait_for(reached.exists, 'the second step')
    script.send_signal(signal.SIGTERM)
    assert script.wait(1800) == 0, output()[-3000:]
    assert any('Paused after step' in log.read_text() for log in work.glob('*/*.log'))
    assert re.search(r'mpvit train .*work --resume', output())  # what to do next
    pointed = work / (work / 'last_checkpoint').read_text()
    assert read(pointed)['meta']['iter'] < 16

    killed = tmp_path / 'killed'
    order = dict(INTERRUPT=f'train 10 1 SIGKILL {killed}', MAX_RESTARTS='1')
    script = two.start(work, '--resume', **order)
    assert script.wait(1800) == 0, output()[-3000:]
    assert killed.exists()
    assert output().count('Resuming from') == 2
    assert differences(work / 'epoch_4.pth', two.whole) == []


def training_processes(script):
    """Of one of the launchers, without torchrun."""
    return [
        pid
        for pid, command in descendants(script.pid)
        if 'tools/train.py' in command and 'mpvit.engine.torchrun' not in command
    ]


@pytest.mark.slow
def test_a_machine_is_cut_off_and_comes_back(two, tmp_path):
    """Two scripts meet over loopback; all of the second one is killed, then started anew."""
    work, reached = tmp_path / 'work', tmp_path / 'reached'
    port = free_port()
    machine = dict(NNODES='2', MASTER_ADDR='127.0.0.1', PORT=str(port), MAX_RESTARTS='3')

    def start(**order):
        return two.start(work, '--resume', processes='1', **machine, **order)

    def listens():
        with socket.socket() as client:
            return client.connect_ex(('127.0.0.1', port)) == 0

    first = start()
    wait_for(listens, 'the meeting place')  # which the first machine holds
    second = start(INTERRUPT=f'train 9 - stay {reached}')
    wait_for(reached.exists, 'the third epoch')
    cut_off(second)
    wait_for(lambda: not training_processes(first), 'the end of the other process')
    assert first.poll() is None  # waits for the other to come back
    third = start()
    assert first.wait(1800) == 0, work.with_suffix('.txt').read_text()[-3000:]
    assert third.wait(600) == 0
    assert differences(work / 'epoch_4.pth', two.whole) == []

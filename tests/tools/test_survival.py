"""Trainings that are killed, from outside and at random moments, and the scripts' signals."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import interruptions
import pytest
from interruptions import differences
from runs import environment, wait_for

from mpvit.checkpoints.reading import read

WANTED = dict(SIGKILL='SIGKILL', SIGTERM='0')


@pytest.mark.parametrize(
    ('kills', 'seed', 'epochs', 'evaluate'),
    [(3, 4, 3, 1), pytest.param(50, 0, 30, 5, marks=pytest.mark.slow)],
    ids=['3', '50'],
)
def test_killed_at_random_moments(root, tiny, tmp_path, kills, seed, epochs, evaluate):
    """There are more epochs than can be trained between the kills."""
    config = interruptions.write_config(tmp_path, tiny[0])
    options = [
        *tiny[1],
        'train_dataloader.num_workers=1',
        f'train_cfg.max_epochs={epochs}',
        f'train_cfg.val_interval={evaluate}',
        'default_hooks.checkpoint.minutes=0.005',
    ]
    result = subprocess.run(
        [sys.executable, root / 'tests/kill_driver.py', config, tmp_path, str(kills), str(seed)]
        + options,
        cwd=root,
        env=environment(root),
        capture_output=True,
        text=True,
        check=False,
    )
    logs = ''.join(path.read_text()[-3000:] for path in tmp_path.glob('*.log'))
    assert result.returncode == 0, result.stderr[-3000:]
    told = json.loads(result.stdout.splitlines()[-1])
    assert (told['whole'], told['finished'], told['torn']) == ('0', '0', []), logs
    for sent, events, end in told['ends']:
        # a SIGTERM while a training is built ends the program, later ones pause it
        assert end in ({sent, '0'} if sent == 'SIGTERM' and events < 2 else {WANTED[sent]}), told
    assert {sent for sent, _, _ in told['ends']} == {'SIGKILL', 'SIGTERM'}
    assert '0' in {end for _, _, end in told['ends']}
    last = f'epoch_{epochs}.pth'
    assert differences(tmp_path / 'killed' / last, tmp_path / 'whole' / last) == []
    assert not list((tmp_path / 'killed').glob('*.tmp'))


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


def workers_of(folder):
    """Training processes, by their command line."""
    found = []
    for place in Path('/proc').glob('[0-9]*'):
        try:
            words = (place / 'cmdline').read_bytes().split(b'\0')
        except OSError:
            continue
        if str(folder).encode() in words and b'torch.distributed.run' not in words:
            found.append(int(place.name))
    return [pid for pid in found if 'python' in os.readlink(f'/proc/{pid}/exe')]


@pytest.mark.slow
def test_two_processes_paused_killed_and_restarted(root, tiny, tmp_path):
    """Three trainings by two processes: whole; paused; then one rank killed and restarted."""
    config = interruptions.write_config(tmp_path, tiny[0])
    imports = "custom_imports = dict(imports=['mpvit.register', 'interruptions'])\n"
    config.write_text(config.read_text().replace('batch_size=2', 'batch_size=1') + imports)
    options = ['train_cfg.max_epochs=4', 'default_hooks.logger.interval=1']
    options = ['--cfg-options', *tiny[1], *options]

    def start(work, *arguments, **further):
        return subprocess.Popen(
            [root / 'tools/dist_train.sh', config, '2', '--work-dir', work, *arguments, *options],
            cwd=root,
            env=environment(root, **further),
            stdout=(tmp_path / 'output.txt').open('a'),
            stderr=subprocess.STDOUT,
        )

    def logged(text):
        return lambda: any(text in log.read_text() for log in (tmp_path / 'work').glob('*/*.log'))

    def output():
        return (tmp_path / 'output.txt').read_text()

    assert start(tmp_path / 'whole').wait(900) == 0, output()[-3000:]
    script = start(tmp_path / 'work')
    wait_for(logged('Epoch(train) [1][2/4]'), 'the second step')
    script.send_signal(signal.SIGTERM)
    assert script.wait(300) == 0, output()[-3000:]
    assert logged('Paused after step')()
    pointed = Path((tmp_path / 'work' / 'last_checkpoint').read_text())
    assert read(pointed)['meta']['iter'] < 16

    script = start(tmp_path / 'work', '--resume', MAX_RESTARTS='1')
    wait_for(logged('Epoch(train) [3][2/4]'), 'the third epoch')
    os.kill(workers_of(tmp_path / 'work')[-1], signal.SIGKILL)
    assert script.wait(900) == 0, output()[-3000:]
    assert output().count('Resuming from') == 2
    assert differences(tmp_path / 'work/epoch_4.pth', tmp_path / 'whole/epoch_4.pth') == []

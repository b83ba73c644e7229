"""Interrupted trainings: resumed, they are those that were not interrupted, bit for bit."""

import errno
import itertools
import os
import random
import signal

import interruptions
import pytest
import torch
from interruptions import Crash, InterruptHook, differences
from mmdet.visualization import DetLocalVisualizer
from mmengine.logging import MMLogger

from mpvit.checkpoints.reading import read
from mpvit.engine.hooks import checkpoint as durable_checkpoint
from mpvit.engine.preemption import TrainingPaused
from mpvit.engine.runner import newest_checkpoint
from mpvit.engine.train import train
from mpvit.errors import UserError

pytestmark = pytest.mark.usefixtures('one_thread')
# how the workers are run changes nothing
ALONE = ('train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False')
LASTING = ('train_dataloader.num_workers=2', 'train_dataloader.persistent_workers=True')
FRESH = ('train_dataloader.num_workers=2', 'train_dataloader.persistent_workers=False')


@pytest.fixture
def run(tiny, tmp_path, monkeypatch):
    """Train with the config of `interruptions`; returns what the log of this run says."""
    monkeypatch.setattr(InterruptHook, 'moment', None)
    config = interruptions.write_config(tmp_path, tiny[0])

    def call(work, *options, at=None, resume=None, ends=None):
        MMLogger._instance_dict.clear()
        DetLocalVisualizer._instance_dict.clear()
        InterruptHook.moment = at
        before = set(work.glob('*/*.log'))
        arguments = dict(work_dir=str(work), resume=resume, cfg_options=[*tiny[1], *options])
        if ends is None:
            train(config, **arguments)
        else:
            with pytest.raises(ends) as caught:
                train(config, **arguments)
        (log,) = set(work.glob('*/*.log')) - before
        text = log.read_text()
        return (text, caught.value) if ends else text

    return call


def checkpoints(work):
    return sorted(path.name for path in work.glob('[ei]*.pth*'))


def test_interrupted_and_resumed_equals_uninterrupted(run, tmp_path):
    work, whole = tmp_path / 'work', tmp_path / 'whole'
    # 8 images, 2 a batch: 4 steps an epoch. The seed is drawn, and stands in the checkpoint.
    drawn = 'randomness.seed=None'
    log, paused = run(work, *ALONE, drawn, at=('train', 1, 'SIGTERM'), ends=TrainingPaused)
    assert paused.code == 0
    assert 'Paused after step 1 of 8 (SIGTERM)' in log
    assert log.strip().endswith('run the same command with --resume')
    assert checkpoints(work) == ['iter_1.pth']

    log, paused = run(
        work, *LASTING, drawn, resume='auto', at=('val', 4, 'SIGUSR1'), ends=TrainingPaused
    )
    assert 'Going on after batch 1 of epoch 1' in log
    assert checkpoints(work) == ['epoch_1.pth']  # the one inside the epoch made way
    assert 'Epoch(val) [1]' not in log  # it was left

    minutes = 'default_hooks.checkpoint.minutes=0'
    log, _ = run(work, *FRESH, drawn, minutes, resume='auto', at=('train', 7, 'crash'), ends=Crash)
    assert 'Epoch(val) [1]' in log  # and done again first
    assert checkpoints(work) == ['epoch_1.pth', 'iter_6.pth']

    log = run(work, *ALONE, drawn, resume='auto')
    assert 'Resuming from' in log
    assert 'Epoch(val) [1]' not in log  # this one was done
    assert checkpoints(work) == ['epoch_1.pth', 'epoch_2.pth']

    seed = read(work / 'epoch_2.pth')['meta']['seed']
    run(whole, *LASTING, f'randomness.seed={seed}')
    assert differences(work / 'epoch_2.pth', whole / 'epoch_2.pth') == []
    assert differences(work / 'epoch_1.pth', whole / 'epoch_1.pth') == []
    assert len(list(work.glob('best_*.pth'))) == 1

    log = run(work, *ALONE, drawn, resume='auto')
    assert 'The training of 2 epochs is finished already' in log
    assert 'Epoch(' not in log


@pytest.mark.slow
def test_accumulated_gradients_are_not_lost(run, tmp_path):
    work, whole = tmp_path / 'work', tmp_path / 'whole'
    options = (*ALONE, 'optim_wrapper.accumulative_counts=3', 'train_cfg.val_interval=5')
    # an epoch ends after 4 batches, inside the second window
    run(work, *options, at=('train', 5, 'crash'), ends=Crash)
    assert checkpoints(work) == ['epoch_1.pth']
    log, _ = run(work, *options, resume='auto', at=('train', 5, 'SIGTERM'), ends=TrainingPaused)
    assert 'Paused after step 6' in log  # the window's end
    run(work, *options, resume='auto')
    run(whole, *options)
    assert differences(work / 'epoch_2.pth', whole / 'epoch_2.pth') == []


def test_an_epoch_of_another_length_starts_anew(run, tmp_path):
    run(tmp_path / 'w', *ALONE, at=('train', 2, 'SIGTERM'), ends=TrainingPaused)
    log, _ = run(
        tmp_path / 'w', *ALONE, 'train_dataloader.batch_size=4', resume='auto',
        at=('train', 3, 'crash'), ends=Crash,
    )  # fmt: skip
    assert 'Epoch 1 starts anew: it has 2 batches and had 4' in log


def test_ctrl_c_pauses_and_a_second_one_ends(run, tmp_path, monkeypatch, capfd):
    sent = []
    monkeypatch.setattr('mpvit.engine.preemption.os.kill', lambda *what: sent.append(what))

    def twice(self, stage, step):
        if (stage, step) == ('train', 1):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)  # at once: the same request, through a launcher
            assert sent == []
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(InterruptHook, '_act', twice)
    try:
        _, paused = run(tmp_path / 'w', *ALONE, ends=TrainingPaused)
    finally:
        signal.signal(signal.SIGINT, before)
    assert paused.code == 130
    assert sent == [(os.getpid(), signal.SIGINT)]
    assert 'Ctrl-C again stops at once' in capfd.readouterr().err


def failing(monkeypatch, *numbers):
    """Let these calls of torch.save find the disk full, after half of the file."""
    calls = itertools.count(1)
    save = torch.save

    def save_or_fail(content, file):
        if next(calls) not in numbers:
            return save(content, file)
        file.write(b'half')
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durable_checkpoint.torch, 'save', save_or_fail)


def test_full_disk_ends_a_training_only_at_its_end(run, tmp_path, monkeypatch):
    work = tmp_path / 'w'
    short = (*ALONE, 'train_dataloader.batch_size=4')
    with monkeypatch.context() as patch:
        failing(patch, 1, 2)  # the first epoch's, and the best one's
        log = run(work, *short)
    assert 'No checkpoint at step 2: ' in log
    assert 'cannot be written (No space left on device); there is no earlier one' in log
    assert 'No best checkpoint at step 2' in log
    assert checkpoints(work) == ['epoch_2.pth']
    assert len(list(work.glob('best_*.pth'))) == 1  # of the second evaluation
    assert not list(work.glob('.mpvit-*'))

    (work / '.mpvit-x').mkdir()  # left by a kill
    (work / '.mpvit-x' / 'epoch_3.pth').write_bytes(b'half')
    with monkeypatch.context() as patch:
        failing(patch, 1)
        _, error = run(work, *short, 'train_cfg.max_epochs=3', resume='auto', ends=UserError)
    assert str(error).startswith('the end of the training is lost')
    assert str(error).endswith(f'the last complete one is {work / "epoch_2.pth"}')
    assert checkpoints(work) == ['epoch_2.pth']
    assert not list(work.glob('.mpvit-*'))


@pytest.fixture
def folder(tmp_path):
    """A work folder with three small checkpoints, the last one current."""
    for number in (1, 2, 3):
        path = tmp_path / f'epoch_{number}.pth'
        torch.save(dict(meta=dict(epoch=number), state_dict=dict(w=torch.zeros(2000))), path)
        os.utime(path, (number, number))
    torch.save(dict(state_dict={}), tmp_path / 'best_coco_bbox_mAP_epoch_3.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_3.pth'))
    return tmp_path


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    'tear',
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: b'',
        lambda content: bytes(len(content)),
        lambda content: b'not a checkpoint',
        flipped,
    ],
    ids=['half', 'last byte', 'empty', 'zeros', 'text', 'one bit'],
)
def test_damaged_checkpoints_are_passed_over(folder, tear, monkeypatch):
    lines = []
    monkeypatch.setattr('mpvit.engine.runner.print_log', lambda line, **_: lines.append(line))
    assert newest_checkpoint(folder) == folder / 'epoch_3.pth'
    for name in ('epoch_3.pth', 'epoch_2.pth'):
        (folder / name).write_bytes(tear((folder / name).read_bytes()))
    assert newest_checkpoint(folder) == folder / 'epoch_1.pth'
    assert [line.split(' ')[:3] for line in lines] == [['Not', 'resumed', 'from:']] * 2
    assert ['epoch_3.pth' in lines[0], 'epoch_2.pth' in lines[1]] == [True, True]
    (folder / 'epoch_1.pth').write_bytes(b'')
    with pytest.raises(UserError, match='3 checkpoints'):
        newest_checkpoint(folder)


def test_which_checkpoint_is_the_newest_checkpoint(folder):
    # a training that began anew in the folder and has saved once; older files are not of it
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_1.pth'))
    assert newest_checkpoint(folder) == folder / 'epoch_1.pth'
    (folder / 'last_checkpoint').write_text('')
    assert newest_checkpoint(folder) is None
    # the folder was moved, and the pointer lost
    (folder / 'last_checkpoint').write_text('/elsewhere/epoch_2.pth')
    assert newest_checkpoint(folder) == folder / 'epoch_2.pth'
    (folder / 'last_checkpoint').unlink()
    assert newest_checkpoint(folder) == folder / 'epoch_3.pth'


@pytest.mark.parametrize('name', ['TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT'])
def test_restarted_jobs_resume(folder, tiny, monkeypatch, name):
    configs = []
    monkeypatch.setattr('mpvit.engine.train.run_training', lambda cfg, *_: configs.append(cfg))
    start = dict(work_dir=str(folder), cfg_options=[f'load_from={folder}/epoch_1.pth'])
    for count in ('', '0', '1'):
        monkeypatch.setenv(name, count)
        train(tiny[0], **start)
    assert [config.resume for config in configs] == [False, False, 'auto']
    assert configs[-1].load_from == f'{folder}/epoch_1.pth'  # if there is nothing to resume from
    train(tiny[0], **start, resume=str(folder / 'epoch_2.pth'))
    assert configs[-1].resume == 'auto'  # not from the start again
    (folder / 'last_checkpoint').write_text('')
    train(tiny[0], **start, resume=str(folder / 'epoch_2.pth'))
    assert (configs[-1].resume, configs[-1].load_from) == (True, str(folder / 'epoch_2.pth'))


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(6))
def test_any_step_and_any_workers(run, tmp_path, seed):
    """Interrupted at up to three random moments, with workers of another kind each time."""
    draw = random.Random(seed)
    whole, work = tmp_path / 'whole', tmp_path / 'work'
    run(whole, *ALONE)
    for step in sorted(draw.sample(range(1, 8), 3)):
        act = draw.choice(['SIGTERM', 'SIGUSR1', 'crash'])
        kind = draw.choice([ALONE, LASTING, FRESH])
        stage = 'val' if step == 4 and act != 'crash' else 'train'
        ends = Crash if act == 'crash' else TrainingPaused
        minutes = 'default_hooks.checkpoint.minutes=0'
        run(work, *kind, minutes, resume='auto', at=(stage, step, act), ends=ends)
    run(work, *draw.choice([ALONE, LASTING, FRESH]), resume='auto')
    assert differences(work / 'epoch_2.pth', whole / 'epoch_2.pth') == []

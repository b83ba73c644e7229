"""Interrupted trainings: resumed, they are those that were not interrupted, bit for bit."""

import errno
import itertools
import os
import random
import shutil
import signal
from pathlib import Path

import interruptions
import pytest
import torch
from interruptions import Crash, InterruptHook, difference, differences
from mmdet.visualization import DetLocalVisualizer
from mmengine.logging import MMLogger

from mpvit.checkpoints.reading import read
from mpvit.engine.hooks import checkpoint as durable_checkpoint
from mpvit.engine.preemption import TrainingPaused
from mpvit.engine.run_folder import RUN, begin_run, checkpoint_run, run_of
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
    runs = {checkpoint_run(read(path)) for path in work.glob('*.pth')}
    assert runs == {run_of(work)}
    assert runs != {run_of(whole)}
    assert 'Without effect' not in log

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
        tmp_path / 'w', *ALONE, 'train_dataloader.batch_size=4',
        'optim_wrapper.optimizer.lr=0.25', resume='auto', at=('train', 3, 'crash'), ends=Crash,
    )  # fmt: skip
    assert 'Epoch 1 starts anew: it has 2 batches and had 4' in log
    assert 'Without effect on a resumed training: optim_wrapper.optimizer.lr = 0.25 (stays' in log


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
    # as earlier versions wrote it, and a folder that was moved and lost its pointer since
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_1.pth'))
    assert newest_checkpoint(folder) == folder / 'epoch_1.pth'
    (folder / 'last_checkpoint').write_text('/elsewhere/epoch_2.pth')
    assert newest_checkpoint(folder) == folder / 'epoch_2.pth'
    (folder / 'last_checkpoint').write_text('epoch_1.pth')
    assert newest_checkpoint(folder) == folder / 'epoch_1.pth'
    for nothing in ('', '/', '..', 'none.pth', '\0', 'x' * 300):
        (folder / 'last_checkpoint').write_text(nothing)
        assert newest_checkpoint(folder) == folder / 'epoch_3.pth'
    (folder / 'last_checkpoint').unlink()
    assert newest_checkpoint(folder) == folder / 'epoch_3.pth'


def test_only_checkpoints_of_the_run_are_resumed(folder):
    for path, run in ((folder / 'epoch_1.pth', 'old'), (folder / 'epoch_2.pth', 'new')):
        torch.save(dict(state_dict={}, message_hub=dict(runtime_info={RUN: run})), path)
    (folder / 'run.json').write_text('{"id": "new"}')
    assert newest_checkpoint(folder) == folder / 'epoch_2.pth'  # though epoch_3 is pointed to
    (folder / 'epoch_2.pth').write_bytes(b'damaged')
    with pytest.raises(UserError, match='none is whole and of the run'):
        newest_checkpoint(folder)  # rather than to start anew over them
    (folder / 'run.json').write_text('{"id": "old"}')
    assert newest_checkpoint(folder) == folder / 'epoch_1.pth'


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_a_copied_folder_is_about_its_own_files(run, tmp_path):
    """Also one of an earlier version, whose checkpoints name others by absolute paths."""
    first, copy = tmp_path / 'first', tmp_path / 'copy'
    run(first, *ALONE, at=('train', 6, 'crash'), ends=Crash)
    before = contents(first)
    shutil.copytree(first, copy)
    found = read(copy / 'epoch_1.pth')
    info = found['message_hub']['runtime_info']
    best = info['best_ckpt']
    assert (info['last_ckpt'], best) == ('epoch_1.pth', Path(best).name)
    assert (copy / 'last_checkpoint').read_text() == 'epoch_1.pth'
    info.update(last_ckpt=str(first / 'epoch_1.pth'), best_ckpt=str(first / best), best_score=-1.0)
    torch.save(found, copy / 'epoch_1.pth')
    (copy / 'last_checkpoint').write_text(str(first / 'epoch_1.pth'))
    log = run(copy, *ALONE, resume='auto')
    assert f'Resuming from {copy}/epoch_1.pth' in log
    assert contents(first) == before
    assert [path.name for path in copy.glob('best_*')] == [best.replace('epoch_1', 'epoch_2')]
    run(first, *ALONE, resume='auto')
    assert read(first / 'epoch_2.pth')['message_hub']['runtime_info'][RUN] == info[RUN]
    first_weights, weights = (read(work / 'epoch_2.pth')['state_dict'] for work in (first, copy))
    assert difference(first_weights, weights) == []


def test_nothing_outside_the_folder_is_deleted(run, tmp_path):
    """Whatever a checkpoint says."""
    work, outside = tmp_path / 'work', tmp_path / 'outside'
    outside.mkdir()
    run(work, *ALONE, at=('train', 5, 'SIGTERM'), ends=TrainingPaused)
    names = ('epoch_9.pth', 'best_x.pth', 'iter_9.pth')
    for name in names:
        (outside / name).touch()
    (tmp_path / 'epoch_9.pth').touch()
    found = read(work / 'iter_5.pth')
    found['message_hub']['runtime_info'].update(
        best_ckpt=str(outside / 'best_x.pth'),
        best_score=-1.0,
        rolling_ckpt='../outside/iter_9.pth',
        keep_ckpt_ids=['x/../../../outside/epoch_9', '../9', 7, 8, 9, 10],
    )
    torch.save(found, work / 'iter_5.pth')
    run(work, *ALONE, resume='auto')
    assert sorted(path.name for path in outside.iterdir()) == sorted(names)
    assert (work / 'epoch_2.pth').exists()


def test_another_run_is_not_resumed_over_the_one_of_a_folder(tmp_path, folder):
    assert begin_run(folder) is not None
    with pytest.raises(UserError, match='holds another run'):
        begin_run(folder, 'other', tmp_path / 'elsewhere' / 'epoch_1.pth')
    (folder / 'run.json').unlink()
    assert begin_run(folder, 'other', folder / 'epoch_1.pth') == 'other'  # the record was lost
    assert begin_run(folder, 'other', tmp_path / 'elsewhere' / 'epoch_1.pth') == 'other'
    new = tmp_path / 'new'
    new.mkdir()
    assert begin_run(new, '', folder / 'epoch_1.pth') is None  # of an earlier version
    assert begin_run(new, 'other', folder / 'epoch_1.pth') == 'other'


@pytest.mark.parametrize(
    ('options', 'says'),
    [
        ([], 'none is whole and of the run'),
        (['optim_wrapper.optimizer.type=Nope'], 'there is no optimizer'),
        (['optim_wrapper.optimizer.nope=1'], 'nope'),
        (['model.num_queries=-1'], 'does not build'),
        (['log_processor.nope=1'], 'nope'),
        (['train_dataloader.dataset.ann_file={folder}/run.json'], 'run.json'),
        (['custom_hooks.0.type=Nope'], 'Nope'),
    ],
    ids=['run', 'optimizer', 'its argument', 'model', 'log', 'data', 'hook'],
)
def test_a_refused_training_leaves_a_folder_as_it_was(folder, tiny, options, says):
    MMLogger._instance_dict.clear()  # a logger has a second for a name
    (folder / 'run.json').write_text('{"id": "new"}')
    (folder / 'tiny.py').write_text('x = 1')
    before = contents(folder), sorted(folder.rglob('*'))
    options = [*tiny[1], *(option.format(folder=folder) for option in options)]
    with pytest.raises(UserError, match=says):
        train(tiny[0], work_dir=str(folder), resume='auto', cfg_options=options)
    assert (contents(folder), sorted(folder.rglob('*'))) == before


def test_a_refused_resume_of_another_run_leaves_both_as_they_were(run, tiny, tmp_path):
    first, second = tmp_path / 'first', tmp_path / 'second'
    run(second, *ALONE, at=('train', 1, 'SIGTERM'), ends=TrainingPaused)
    shutil.copytree(second, first)
    (first / 'run.json').write_text('{"id": "first"}')
    (first / 'interrupted.py').write_text('x = 1')
    InterruptHook.moment = None
    before = contents(tmp_path), sorted(tmp_path.rglob('*'))
    with pytest.raises(UserError, match='holds another run'):
        train(
            tmp_path / 'interrupted.py',
            work_dir=str(first),
            resume=str(second / 'iter_1.pth'),
            cfg_options=[*tiny[1], *ALONE],
        )
    assert (contents(tmp_path), sorted(tmp_path.rglob('*'))) == before


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

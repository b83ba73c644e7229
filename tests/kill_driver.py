"""Kill a training again and again, resume it each time, and train it once without.

    python tests/kill_driver.py CONFIG FOLDER KILLS SEED [KEY=VALUE ...]

A kill comes at a place of the program, such as the second checkpoint of which half is written, and
not after some time: a busy machine changes nothing. After the last one the training is resumed for
one more step and paused; the training without kills is paused at the same step.

Importing takes longer than an attempt, so this process imports everything, computes nothing, and
forks for every attempt. It prints one JSON object: where and how each attempt ended, torn files,
and the checkpoints to compare.
"""

import io
import json
import os
import random
import signal
import sys
import traceback
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from interruptions import InterruptHook
from mmengine.dataset import BaseDataset
from runs import leave_configs_as_they_are
from torch.utils.data import get_worker_info

from mpvit.checkpoints.reading import read
from mpvit.engine.train import train

# The places, and the passage at which an attempt is killed at the latest.
PLACES = dict(
    start=1,  # everything is built, nothing is loaded
    begin=6,  # of a step
    train=6,  # a step is done
    val=2,  # a batch is evaluated
    save=4,  # the state is put together
    half=4,  # half of a checkpoint is written
    sync=8,  # a file is written and not yet flushed
    move=8,  # a file is flushed and not yet in its place
    moved=8,  # and is, but no file points to it
    item=8,  # a worker reads an image
    worker=8,  # and dies itself
)
leave_configs_as_they_are()


class Kill:
    """A signal at the passage of a place, counted from the start of the process."""

    def __init__(self, place: str, passage: int, number: int) -> None:
        self.place, self.passage, self.number = place, passage, number
        self.seen: Counter[str] = Counter()
        self.pipe = -1

    def passes(self, place: str) -> None:
        """Called at every place; the driver hears if a step had begun."""
        self.seen[place] += 1
        if place == self.place and self.seen[place] == self.passage:
            os.write(self.pipe, b'1' if self.seen['begin'] else b'0')
            os.kill(os.getppid() if place == 'item' else os.getpid(), self.number)

    def listen(self) -> None:
        """Hear of all places in this process and its workers."""
        InterruptHook.listener = self.passes
        save, prepare = torch.save, BaseDataset.prepare_data

        def save_in_halves(what: Any, file: Any, *args: Any, **kwargs: Any) -> None:
            whole = io.BytesIO()
            save(what, whole, *args, **kwargs)
            content = whole.getvalue()
            file.write(content[: len(content) // 2])
            file.flush()
            self.passes('half')
            file.write(content[len(content) // 2 :])

        def read_in_worker(dataset: Any, index: int) -> Any:
            if get_worker_info() is not None:
                self.passes('item')
                self.passes('worker')
            return prepare(dataset, index)

        torch.save = save_in_halves
        BaseDataset.prepare_data = read_in_worker
        os.fsync = self._around(os.fsync, 'sync')
        os.replace = os.rename = self._around(os.replace, 'move', 'moved')

    def _around(self, call: Any, before: str, after: str | None = None) -> Any:
        def passing(*args: Any, **kwargs: Any) -> Any:
            self.passes(before)
            result = call(*args, **kwargs)
            if after:
                self.passes(after)
            return result

        return passing


def attempt(work: Path, arguments: dict, kill: Kill) -> tuple[str, str]:
    """Train in a child, which is killed.

    Returns:
        How it ended, as a status or the name of a signal; and '1' if the signal came after the
        first step had begun, '0' if before, '' if it did not come.
    """
    reader, kill.pipe = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        kill.listen()
        _train(work, arguments)
    os.close(kill.pipe)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.set_blocking(reader, False)  # a worker that was left alone holds the other end
    try:
        told = os.read(reader, 1).decode()
    except BlockingIOError:
        told = ''
    os.close(reader)
    return signal.Signals(-code).name if code < 0 else str(code), told


def _train(work: Path, arguments: dict) -> None:
    status = 1
    try:
        log = os.open(work.with_suffix('.log'), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        train(**arguments, work_dir=str(work), resume='auto')
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def torn(work: Path) -> list[str]:
    """Checkpoints that are not whole."""
    names = []
    for path in work.glob('*.pth'):
        try:
            if zipfile.ZipFile(path).testzip() is None:
                continue
        except zipfile.BadZipFile:
            pass
        names.append(path.name)
    return names


def main(config: str, folder: str, kills: str, seed: str, *options: str) -> None:
    """Train with kills in FOLDER/killed, and without in FOLDER/whole."""
    draw = random.Random(int(seed))
    killed, whole = Path(folder) / 'killed', Path(folder) / 'whole'
    result: dict = dict(ends=[], torn=[])
    for _ in range(int(kills)):
        place = draw.choice(list(PLACES))
        number = draw.choice([signal.SIGKILL, signal.SIGTERM])
        if place == 'worker':  # leaves other signals to the training process
            number = signal.SIGKILL
        kill = Kill(place, draw.randint(1, PLACES[place]), number)
        # a checkpoint after every step, or after every epoch only
        every = f'default_hooks.checkpoint.minutes={draw.choice(["0", "None"])}'
        end, begun = attempt(killed, dict(config=config, cfg_options=[*options, every]), kill)
        result['ends'].append([place, kill.passage, number.name, begun, end])
        result['torn'] += torn(killed)
    arguments = dict(config=config, cfg_options=list(options))
    result['last'] = attempt(killed, arguments, Kill('train', 1, signal.SIGTERM))
    names = [Path((killed / 'last_checkpoint').read_text()).name]
    steps = read(killed / names[0])['meta']['iter']
    result['whole'] = attempt(whole, arguments, Kill('train', steps, signal.SIGTERM))
    names.append(Path((whole / 'last_checkpoint').read_text()).name)
    print(json.dumps(dict(result, steps=steps, names=names)))


if __name__ == '__main__':
    main(*sys.argv[1:])

"""What ends a run from outside - memory, disk, a process that died - said in one line."""

import errno
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mpvit.engine.run_folder import last_checkpoint
from mpvit.errors import UserError

_LESS_MEMORY = (
    'lower train_dataloader.batch_size (optim_wrapper.accumulative_counts keeps the images of a '
    'step), recompute with model.encoder.num_cp=6 and model.backbone.with_cp=True, or use '
    '--amp bf16 (docs/train.md, Speed and memory)'
)
# The text of the error, and what to say; {0} is the first group, else the first line of the error,
# {less}, {auto} and {workers} how to get by with less memory. The patterns take time in proportion
# to the text: none has a repetition that is tried from every character.
_FAULTS = (
    (
        r'out of shared memory|shared memory (?:object|file|limit)|allocate shared memory|shm_open'
        r'|</?torch_\d+',
        'the workers of a dataloader are out of shared memory (/dev/shm): give a container more '
        '(docker run --shm-size=8g or --ipc=host), or lower num_workers or prefetch_factor of '
        'the dataloaders',
    ),
    (
        r'DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (?:is )?(killed by signal: \w+|exited '
        r'unexpectedly)',
        'a worker of a dataloader died ({0}); if the kernel ended it for want of memory (dmesg '
        'says so), lower num_workers or prefetch_factor of the dataloaders',
    ),
    (
        r'out of memory\. Tried to allocate ([\d.]+ \w+)',
        'the GPU is out of memory (no room for {0}): {auto}{less}',
    ),
    (r'CUDA out of memory|CUDA error: out of memory', 'the GPU is out of memory: {auto}{less}'),
    (
        r"MemoryError|can't allocate memory|not enough memory|Cannot allocate memory",
        'the machine is out of memory: {workers}{less}',
    ),
    (
        r'No space left on device|Disk quota exceeded|PytorchStreamWriter failed|unexpected pos',
        'no space left to write a file: free some and go on',
    ),
)
# Words of torch's distributed errors, of which one of each is in the text of the error.
_DISTRIBUTED = 'gloo nccl processgroup tcpstore distbackenderror distnetworkerror diststoreerror'
_GONE = (
    'connect,closed,reset,abort,timeout,time out,time-out,timed out,broken pipe,remote process,'
    'heartbeat'
)
_PEER = 'another process of this run ended or cannot be reached ({0}); its own output has the cause'
_LONGEST = 2**20  # characters of an error that are looked at, and
_SHOWN = 300  # of its first sentence that are said
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def explained_faults(
    work_dir: str | os.PathLike[str] | None = None,
    less_memory: str | None = None,
    outputs: str | os.PathLike[str] | None = None,
) -> Iterator[None]:
    """Turn what happens to a run from outside into a `UserError`; other errors pass.

    Args:
        work_dir: Of a training, whose last checkpoint is then named; None for a test.
        less_memory: How to get by with less memory; None for what helps a training.
        outputs: Folder that is written to, if it is not that of a training.

    Raises:
        UserError: Memory, shared memory or the disk is full, or a worker or another process of
            the run died.
    """
    try:
        yield
    except (RuntimeError, OSError, MemoryError) as error:
        line = explain(error, less_memory, work_dir or outputs)
        if line is None:
            raise
        if work_dir is not None:
            line += f'. Training ended; {last_checkpoint(work_dir)}'
        raise UserError(line, every_rank=True) from error


@contextmanager
def traceback_in_log(logger: logging.Logger) -> Iterator[None]:
    """Write the traceback of an error into the files of a log, and let the error pass."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, UserError):
            values = dict(name=logger.name, levelno=logging.ERROR, levelname='ERROR')
            record = logging.makeLogRecord({**values, 'msg': 'error', 'exc_info': sys.exc_info()})
            for handler in logger.handlers:
                if isinstance(handler, logging.FileHandler):
                    handler.handle(record)
        raise


def explain(
    error: BaseException,
    less_memory: str | None = None,
    outputs: str | os.PathLike[str] | None = None,
) -> str | None:
    """What happened and what to do about it, in one line, or None if it is something else."""
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        place = f'a file in {os.fspath(outputs)}' if outputs else 'a file'
        return f'no space left to write {error.filename or place}: free some and go on'
    texts = [f'{type(e).__name__}: {e}'[:_LONGEST] for e in _chain(error)]
    text = '\n'.join(reversed(texts))
    line, detail = _line(text)
    if line is None:
        return None
    if detail is None:
        first = str(error)[:_SHOWN].strip().partition('\n')[0]
        detail = first.partition('. ')[0].rstrip(' .')
    return line.format(
        detail,
        less=less_memory or _LESS_MEMORY,
        auto='' if less_memory else 'use --batch-size auto, ',
        workers='' if less_memory else 'lower num_workers of the dataloaders, or ',
    )


def _line(text: str) -> tuple[str | None, str | None]:
    """What to say of an error, and a detail of it, if there are."""
    for pattern, line in _FAULTS:
        if found := re.search(pattern, text):
            return line, found[1] if found.groups() else None
    lower = text.lower()
    split = _DISTRIBUTED.split(), _GONE.split(',')
    if all(any(word in lower for word in words) for words in split):
        return _PEER, None
    return None, None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those behind it: torch puts the signal that killed a worker behind its exit."""
    current: BaseException | None = error
    while isinstance(current, (RuntimeError, OSError, MemoryError)):
        yield current
        current = current.__cause__ or current.__context__

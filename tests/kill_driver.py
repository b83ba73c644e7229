"""Kill a training again and again, resume it each time, and train it once without.

    python tests/kill_driver.py CONFIG FOLDER KILLS SEED [KEY=VALUE ...]

Importing takes longer than an attempt, so this process imports everything, computes nothing, and
forks for every attempt. It prints one JSON object: what ended each attempt, and torn files.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
import zipfile
from pathlib import Path

from interruptions import InterruptHook
from runs import leave_configs_as_they_are

from mpvit.engine.train import train

# after how many steps, saves and evaluated batches a kill comes, and how many seconds later
MOST_EVENTS, LONGEST = 7, 0.25
leave_configs_as_they_are()


def attempt(work: Path, arguments: dict, kill: tuple[int, float, int] | None) -> str:
    """Train in a child, which is killed: ``(events, seconds, signal)``; returns how it ended."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _train(work, arguments, writer)
    os.close(writer)
    if kill is not None:
        events, seconds, number = kill
        while events and os.read(reader, 1):
            events -= 1
        time.sleep(seconds)
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            os.kill(child, number)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(reader)
    return signal.Signals(-code).name if code < 0 else str(code)


def _train(work: Path, arguments: dict, writer: int) -> None:
    status = 1
    try:
        log = os.open(work.with_suffix('.log'), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        InterruptHook.pipe = writer
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
    """Train without a kill in FOLDER/whole, and with them in FOLDER/killed."""
    arguments = dict(config=config, cfg_options=list(options))
    killed = Path(folder) / 'killed'
    draw = random.Random(int(seed))
    result: dict = dict(ends=[], torn=[], finished=None, whole=None)
    result['whole'] = attempt(Path(folder) / 'whole', arguments, None)
    for _ in range(int(kills)):
        number = draw.choice([signal.SIGKILL, signal.SIGTERM])
        kill = (draw.randrange(MOST_EVENTS + 1), draw.uniform(0, LONGEST), number)
        end = attempt(killed, arguments, kill)
        result['ends'].append([number.name, kill[0], end])
        result['torn'] += torn(killed)
    result['finished'] = attempt(killed, arguments, None)
    print(json.dumps(result))


if __name__ == '__main__':
    main(*sys.argv[1:])

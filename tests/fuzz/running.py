"""Runs cases, several at a time, each in processes that are forked from a warmed one."""

import argparse
import gc
import json
import os
import random
import re
import shlex
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import fuzz.cases
from fuzz import sandbox, self_check, world
from fuzz.judge import judge, state


def main() -> int:
    """Run cases and print those that fail; 1 if there are any."""
    parser = argparse.ArgumentParser(prog='python tests/fuzz', description=__doc__)
    parser.add_argument('--seed', type=int, default=random.randrange(10**6))
    parser.add_argument('--cases', type=int, default=200, help='how many, from --first on')
    parser.add_argument('--first', type=int, default=0)
    parser.add_argument('--case', type=int, help='this one, and keep its folder')
    parser.add_argument('--jobs', type=int, default=os.cpu_count())
    parser.add_argument('--command', help='only cases of this command')
    given = parser.parse_args()
    numbers: Iterable[int] = range(given.first, given.first + given.cases)
    if given.case is not None:
        numbers = [given.case]
    if given.command:
        wanted = [
            n for n in numbers if fuzz.cases.case(given.seed, n)[0].lines[0][0] == given.command
        ]
        numbers = wanted
    print(f'seed {given.seed}', flush=True)
    start = time.monotonic()
    warm()
    folder = Path(tempfile.mkdtemp(prefix='mpvit-fuzz-', dir=_in_memory()))
    failed, commands, kinds = 0, Counter[str](), defaultdict[str, list[str]](list)
    try:
        _forked(lambda: world.build(folder / 'world', _call))
        _forked(lambda: self_check.check(folder / 'world', folder))
        print(f'warm after {time.monotonic() - start:.0f} s', flush=True)
        for found in _all(given.seed, numbers, folder, given.jobs, given.case is not None):
            commands[f'{found["command"]} {found["statuses"]}'] += 1
            failed += bool(found['wrong'])
            for wrong in found['wrong']:
                kinds[_kind(f'{found["command"]}: {wrong}')].append(found['case'])
            if found['wrong'] or given.case is not None:
                _show(found)
    finally:
        if given.case is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(f'{commands.total()} cases, {failed} outside the contract, seed {given.seed}, ', end='')
    print(f'{time.monotonic() - start:.0f} s')
    for name, count in sorted(commands.items()):
        print(f'  {count:5} {name}')
    if failed:
        print(f'one again: python tests/fuzz --seed {given.seed} --case N; kinds of failures:')
    for name, cases in sorted(kinds.items()):
        print(f'  {len(cases):5} {name}: {" ".join(cases[:8])}')
    return int(bool(failed))


def _in_memory() -> str | None:
    """Where disks do not slow the cases down, if there is room; None for the usual place."""
    place = '/dev/shm'
    if os.path.isdir(place) and shutil.disk_usage(place).free > 2**30:
        return place
    return None


def warm() -> None:
    """Import what commands import, and start no thread."""
    sys.path.insert(0, str(world.ROOT / 'tests'))
    from runs import leave_configs_as_they_are

    import mpvit.register  # noqa: F401
    from mpvit.cli._main import commands, load

    leave_configs_as_they_are()
    for name in commands():
        load(name)
    for name in _MODULES:
        __import__(name)
    _attend()
    gc.collect()
    gc.freeze()  # so that children do not copy these pages by looking at them
    threads = [path.read_text().strip() for path in Path('/proc/self/task').glob('*/comm')]
    # that of PyArrow's allocator knows about forks
    threads = [name for name in threads if name != 'jemalloc_bg_thd']
    assert len(threads) == 1, f'threads run, and would be lost in children: {threads}'


def _attend() -> None:
    """Have deformable attention load its compiled code."""
    import torch

    from mpvit.ops.msda.op import ms_deform_attn

    shapes = torch.tensor([[2, 2]])
    ms_deform_attn(
        torch.zeros(1, 4, 4, 32), shapes, torch.zeros(1, 1, 4, 1, 4, 2), torch.zeros(1, 1, 4, 1, 4)
    )


_MODULES = (
    'mpvit.datasets.check',
    'mpvit.datasets.conversion',
    'mpvit.engine.test',
    'mpvit.engine.train',
    'mpvit.export.files',
    'mpvit.inference.outputs',
    'mpvit.model_info',
    'mpvit.visualization.curves',
    'mpvit.visualization.dataset_browser',
    'mpvit.visualization.dataset_picture',
    'mpvit.visualization.error_pictures',
    'mpvit.visualization.queries',
    'mpvit.visualization.report',
    'supervision',
    'torch.utils.tensorboard',
)


def _call(words: list[str]) -> None:
    """Run a command line in this process, quietly."""
    from mpvit.cli._main import main

    out = os.open('out.txt', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    kept = [os.dup(1), os.dup(2)]
    os.dup2(out, 1)
    os.dup2(out, 2)
    try:
        main(words)
        sys.stdout.flush()
    except BaseException as error:
        os.dup2(kept[1], 2)
        raise AssertionError(f'{words}: {Path("out.txt").read_text()[-2000:]}') from error
    finally:
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)


def _forked(work: Any) -> None:
    """Do something in a process of its own."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def _all(
    seed: int, numbers: Iterable[int], folder: Path, jobs: int, keep: bool
) -> Iterator[dict[str, Any]]:
    """Run cases, a few at once, and give what was found."""
    running: dict[int, Path] = {}
    todo, done = iter(numbers), 0
    while True:
        number = next(todo, None) if len(running) < jobs else None
        if number is not None:
            place = folder / f'case-{number}'
            pid = os.fork()
            if pid == 0:
                _work(seed, number, folder / 'world', place)
            running[pid] = place
            continue
        if not running:
            return
        pid, status = os.wait()
        if pid not in running:
            continue
        place = running.pop(pid)
        yield json.loads((place / '.found.json').read_text())
        done += 1
        if done % 500 == 0:
            print(f'{done} cases', flush=True)
        if not keep:
            shutil.rmtree(place, ignore_errors=True)


def _work(seed: int, number: int, inputs: Path, folder: Path) -> None:
    """Do a case in this process, which then ends."""
    found: dict[str, Any] = {}
    try:
        folder.mkdir()
        case, rng = fuzz.cases.case(seed, number)
        found = dict(case=case.name, command=case.lines[0][0], statuses=[], folder=str(folder))
        found |= dict(wrong=['the fuzzer itself failed'], told=[], lines=[], err='')
        fuzz.cases.prepare(case, rng, inputs, folder)
        before = {name: state(folder / name) for name in ('in', 'outside', 'run')}
        outcomes = []
        for words in case.lines:
            outcomes.append(sandbox.run(words, folder, case.fault))
            if outcomes[-1].status != 0:
                break
        found |= dict(
            statuses=[outcome.status for outcome in outcomes],
            wrong=judge(case, outcomes, folder, before),
            told=case.told,
            lines=[shlex.join(words) for words in case.lines],
            err=outcomes[-1].err[-3000:],
            seconds=sum(outcome.seconds for outcome in outcomes),
        )
    except BaseException:
        found['err'] = traceback.format_exc()
    finally:
        (folder / '.found.json').write_text(json.dumps(found))
        os._exit(0)


def _kind(text: str) -> str:
    """A failure without what is of the case alone."""
    return re.sub(r'(/tmp)?/\S*/', '/', re.sub(r'\d+', 'N', text))[:160]


def _show(found: dict[str, Any]) -> None:
    print(f'\ncase {found["case"]} status {found["statuses"]} in {found["folder"]}')
    for line in found['lines']:
        print(f'  $ mpvit {line}'.encode(errors='backslashreplace').decode())
    for label, lines in (('done', found['told']), ('WRONG', found['wrong'])):
        for line in lines:
            print(f'  {label}: {line}'.encode(errors='backslashreplace').decode())
    if found['err']:
        tail = '\n    '.join(found['err'].strip().splitlines()[-6:])
        print(f'    {tail}'.encode(errors='backslashreplace').decode(), flush=True)

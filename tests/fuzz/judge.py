"""What a command may do with hostile input: the right result, or one line and status 1 or 2."""

import os
import re
import stat
import zlib
from pathlib import Path

from fuzz.cases import Case
from fuzz.checkpoints import CANARY
from fuzz.sandbox import Outcome
from fuzz.world import unreadable

State = dict[str, tuple[object, ...]]
_SAID = re.compile(r'(mpvit \w+( \w+)?: )?error: .')
_TEMPORARY = re.compile(r'\..*|.*\.(part|tmp|temp)')


def state(folder: Path) -> State:
    """What lies in a folder: kind and content of everything."""
    found: State = {}
    for path in sorted(folder.rglob('*')):
        about = path.lstat()
        content: object = None
        if stat.S_ISREG(about.st_mode):
            content = about.st_size, zlib.crc32(path.read_bytes())
        elif stat.S_ISLNK(about.st_mode):
            content = os.readlink(path)
        found[str(path.relative_to(folder))] = (stat.S_IFMT(about.st_mode), content)
    return found


def judge(case: Case, outcomes: list[Outcome], folder: Path, before: dict[str, State]) -> list[str]:
    """What was wrong, in a line each."""
    wrong = [note for outcome in outcomes for note in outcome.notes]
    for outcome in outcomes:
        wrong += _said(case, outcome)
    statuses = [outcome.status for outcome in outcomes]
    if case.whole and any(statuses):
        wrong.append(f'nothing was damaged, and the status is {statuses}')
    if case.refused and statuses[0] == 0:
        wrong.append('unusable weights were used')
    if len(statuses) > 1 and statuses[0] == 0 and statuses[1] != 0:
        wrong.append(f'passed by the check and refused by the training: {outcomes[1].err[-300:]}')
    if any(folder.rglob(CANARY)):
        wrong.append('executed: the canary is there')
    for name in ('in', 'outside'):
        if state(folder / name) != before[name]:
            wrong.append(f'changed what lies in {name}')
    ended = all(status is not None and status >= 0 for status in statuses)
    return [*wrong, *_written(statuses[-1] == 0, ended, folder / 'run', before)]


def _said(case: Case, outcome: Outcome) -> list[str]:
    """Whether a status and what was said fit together."""
    wrong = []
    status, err = outcome.status, outcome.err
    kind = case.fault.kind if case.fault else ''
    for name, text in (('output', outcome.out), ('error output', err)):
        if 'Traceback (most recent call last)' in text or 'Exception ignored' in text:
            lines = [line for line in text.strip().splitlines() if line.strip()]
            wrong.append(f'a traceback in the {name}, at the end: {lines[-1][:300]}')
    if status is None or wrong:
        return wrong
    allowed = {'signal': (0, 1, 2, 130, 143, -2, -15), 'pipe': (0, 1, 2, -13)}.get(kind, (0, 1, 2))
    if status not in allowed:
        wrong.append(f'status {status}')
    elif status in (1, 2):
        lines = [line for line in err.replace('\r', '\n').splitlines() if line.strip()]
        said = [bool(_SAID.match(line)) for line in lines]
        report = case.lines[0][0] == 'check_dataset' and 'error' in outcome.out and not any(said)
        # nobody reads, or what was said did not fit on the disk either
        silent = kind in ('pipe', 'signal') or (kind == 'full' and len(err) >= case.fault.number)
        silent = silent and not any(said)
        one = any(said) and all(said[said.index(True) :])
        if not (one or report or silent):
            wrong.append(f'status {status} and no line that says why, but: {err[-300:]!r}')
    return wrong


def _written(success: bool, ended: bool, folder: Path, states: dict[str, State]) -> list[str]:
    """Whether earlier outputs are whole, new ones can be read, and nothing is left half done."""
    wrong = []
    before, after = states['run'], state(folder)
    for name, (kind, content) in before.items():
        if name not in after and not (success and name.endswith('.pth')):
            wrong.append(f'an earlier output is gone: {name}')
        elif stat.S_ISREG(kind) and after.get(name, (kind, content)) != (kind, content):
            reason = unreadable(folder / name)
            if reason:
                wrong.append(f'an earlier output was broken: {name}: {reason}')
    for name in sorted(set(after) - set(before)):
        path = folder / name
        if not stat.S_ISREG(after[name][0]) or after[name] in states['in'].values():
            continue  # no file, or the copy of an input, damaged or not
        if _TEMPORARY.fullmatch(path.name):
            if ended:
                wrong.append(f'left behind: {name}')
        elif reason := unreadable(path):
            wrong.append(f'an output is not whole: {name}: {reason}')
    return wrong

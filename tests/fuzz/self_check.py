"""A fuzzer that finds nothing must be able to: scripts that break each part of the contract."""

import random
from pathlib import Path

import fuzz.cases
from fuzz import sandbox
from fuzz.judge import judge, state

MISDEEDS = {
    'a traceback': 'raise ValueError',
    'outside its folder': "open('../outside/new.txt', 'w').close()",
    'changed what lies in outside': "import os; os.remove('../outside/kept.txt')",
    'a program was started': "import subprocess; subprocess.run(['true'])",
    'executed': "open('canary', 'w').close()",
    'left running': 'import os, time; os.fork() or time.sleep(60)',
    'an output is not whole': "open('x.json', 'w').write('[1,')",
    'an earlier output was broken': "open('work/epoch_1.pth', 'r+b').truncate(5000)",
    'an earlier output is gone': "import os; os.remove('work/metrics.json')",
    'left behind': "open('.x.json.tmp', 'w').close()",
    'status 3': 'raise SystemExit(3)',
    'no line that says why': 'raise SystemExit(1)',
    'hung: did nothing': 'import time; time.sleep(60)',
    'hung: more than': 'while True: pass',
    'bytes of memory': "x = b'x' * 2**28\nimport time; time.sleep(60)",
}


def check(world: Path, folder: Path) -> None:
    """Let the judge see each misdeed, and a script that does nothing wrong.

    Raises:
        AssertionError: It does not object to one, or objects to the other.
    """
    limits = dict(IDLE_SECONDS=1.0, CPU_SECONDS=1.0, MEMORY=2**27)
    before = {name: getattr(sandbox, name) for name in limits}
    for number, (word, text) in enumerate([*MISDEEDS.items(), ('', 'print("fine")')]):
        case = fuzz.cases.Case('self-check', [['run', 'SCRIPT']], whole=True)
        place = folder / f'misdeed-{number}'
        place.mkdir()
        fuzz.cases.prepare(case, random.Random(0), world, place)
        (place / 'in' / 'script.py').write_text(text)
        states = {name: state(place / name) for name in ('in', 'outside', 'run')}
        vars(sandbox).update(limits if word.startswith(('hung', 'bytes')) else before)
        wrong = judge(case, [sandbox.run(case.lines[0], place)], place, states)
        assert any(word in line for line in wrong) if word else not wrong, (text, wrong)
    vars(sandbox).update(before)

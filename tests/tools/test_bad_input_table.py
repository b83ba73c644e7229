"""docs/errors.md lists bad inputs and what each prints, as it is.

``MPVIT_WRITE_ERRORS=1 pytest -m '' tests/tools/test_bad_input_table.py`` writes it anew; look at
the difference before it is committed.
"""

import os
import re

import pytest
import torch
from bad_inputs import CASES, Place

DOCUMENT = 'docs/errors.md'
WRITE = os.environ.get('MPVIT_WRITE_ERRORS') == '1'
INTRODUCTION = """\
# Bad input and what it prints

A mistake ends in one line that begins with `error:` and in status 1 (2 for flags that do not
exist), without a traceback; `MPVIT_DEBUG=1` shows it. The lines below are compared with what the
tools print by `tests/tools/test_bad_input_table.py`, which also writes this file. `DIR` stands for
a folder of the user, `...` for text that depends on versions of Python and libraries. Several
mistakes are a line each, here divided by ` / `.
"""
ROW = re.compile(r'\| (.+?) \| (`+) ?(.+?) ?\2 \|')
printed: dict[str, str] = {}


def table(lines):
    text = INTRODUCTION
    for section in dict.fromkeys(case.section for case in CASES):
        text += f'\n## {section}\n\n| input | message |\n|---|---|\n'
        for case in CASES:
            if case.section == section:
                line = lines[case.name]
                code = f'`` {line} ``' if '`' in line else f'`{line}`'
                text += f'| {case.what} | {code} |\n'
    return text


def documented(root):
    rows, section = {}, ''
    for line in (root / DOCUMENT).read_text().splitlines():
        if line.startswith('## '):
            section = line[3:]
        elif match := ROW.fullmatch(line):
            rows[f'{section}: {match[1]}'] = match[3]
    return rows


def plain(line, case, place, root):
    """A line without what differs from run to run and from machine to machine."""
    for text, name in (
        (str(place.folder), 'DIR'),
        (str(place.trained), 'DIR'),
        (str(place.toy), 'DIR'),
        (f'{root}/', ''),
    ):
        line = line.replace(text, name)
    return re.sub(case.varies, '...', line) if case.varies else line


@pytest.fixture(scope='module', autouse=True)
def quick(request):
    """mmengine asks compilers and GPUs for their versions at every start."""
    patch = pytest.MonkeyPatch()
    patch.setattr('mmengine.runner.runner.collect_env', dict)
    yield
    patch.undo()


@pytest.mark.skipif(torch.cuda.is_available(), reason='one line is of a machine without a GPU')
@pytest.mark.parametrize(
    'case',
    [
        pytest.param(case, id=case.name.replace(' ', '-'), marks=[pytest.mark.slow] * case.slow)
        for case in CASES
    ],
)
def test_message(case, tool, tiny, toy, trained, root, tmp_path, monkeypatch):
    for name in ('RANK', 'MPVIT_TRUST_CHECKPOINTS', 'MPVIT_DEBUG'):
        monkeypatch.delenv(name, raising=False)
    config, options = tiny
    place = Place(tmp_path, config, options, toy, trained)
    result = tool(*case.command(place))
    assert result.status == case.status, result.err
    assert 'Traceback' not in result.out + result.err
    lines = result.err.strip().splitlines()
    errors = [line for line in lines if re.match(r'(\w+\.py: )?error: ', line)]
    assert errors, result.err
    assert lines[-len(errors) :] == errors  # one for each mistake, and nothing after them
    printed[case.name] = plain(' / '.join(errors), case, place, root)
    if not WRITE:
        assert printed[case.name] == documented(root)[case.name]


def test_the_document_lists_every_case(root):
    assert len({case.name for case in CASES}) == len(CASES) >= 40
    if WRITE:
        (root / DOCUMENT).write_text(table(printed))
    rows = documented(root)
    assert (root / DOCUMENT).read_text() == table(rows)

"""The Dockerfile fits the project and the page that explains it; debian_root.py carries it out."""

import json
import re
import shlex
from pathlib import Path

import pytest
from debian_root import context, instructions

from mpvit.checkpoints.published import FOLDER
from mpvit.cli._main import commands

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / 'Makefile').read_text()
STEPS = list(instructions((ROOT / 'Dockerfile').read_text()))


def values(name: str) -> list[str]:
    return [value for step, value in STEPS if step == name]


@pytest.fixture(scope='module')
def page() -> list[list[str]]:
    """The commands of docker in the documentation, as words."""
    text = (ROOT / 'docs' / 'install.md').read_text(encoding='utf-8').replace('\\\n', ' ')
    return [shlex.split(line) for line in re.findall(r'^docker .*', text, re.MULTILINE)]


def test_what_the_wheel_is_made_of_reaches_the_build():
    files = set(context(ROOT, (ROOT / '.dockerignore').read_text()))
    for link in (ROOT / 'mpvit' / '.mim').iterdir():  # whole folders, or a file
        target = link.resolve()
        parts = [path for path in [target, *target.rglob('*.*')] if path.is_file()]
        parts = [path for path in parts if path.suffix != '.pyc']
        assert parts
        assert {path.relative_to(ROOT) for path in parts} <= files
    named = {Path(name) for line in values('COPY') for name in line.split()[:-1] if name != '.'}
    assert named <= files
    assert not {path.parts[0] for path in files} & {'.git', '.venv', 'data', 'work_dirs'}


def test_it_installs_as_make_setup_does():
    pinned = [re.search(r'uv==\S+', text)[0] for text in (' '.join(values('RUN')), MAKEFILE)]
    assert pinned[0] == pinned[1]
    extras = re.findall(r'--extra (\w+)', ' '.join(values('RUN')))
    offered = re.search(r'EXTRAS = \{.*?^\}', (ROOT / 'setup.py').read_text(), re.M | re.S)[0]
    assert set(extras) - {'demo'} == set(re.findall(r"^    '(\w+)'", offered, re.M)) - {'docs'}


def test_nobody_needs_to_be_root():
    assert values('USER')[-1] not in ('root', '0')
    env = dict(word.split('=', 1) for line in values('ENV') for word in shlex.split(line))
    assert env[FOLDER] in json.loads(values('VOLUME')[0])


def test_the_page_uses_what_there_is(page):
    arguments = {value.partition('=')[0] for value in values('ARG')}
    mounts = {*json.loads(values('VOLUME')[0])}
    mounted = set()
    assert page
    for words in page:
        after = dict(zip(words, words[1:], strict=False))
        if words[1] == 'build':
            assert after.get('--build-arg', 'TORCH=').partition('=')[0] in arguments
        elif words[1] == 'run':
            pairs = zip(words, words[1:], strict=False)
            mounted |= {place.split(':')[1] for flag, place in pairs if flag == '-v'}
            image = next(i for i, word in enumerate(words) if word.split(':')[0] == 'mpvit')
            if '--entrypoint' not in words:
                assert words[image + 1] in commands(), words
    assert mounts <= mounted

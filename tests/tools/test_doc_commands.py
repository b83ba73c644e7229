"""The commands of the documentation do what they say.

What stands in a ```sh or ```python fence of README.md and docs/ runs here, a page after the other,
each in a folder of its own, with small things in the place of WORDS. All other commands, also those
in the text, are checked against the arguments that the tools really take.
"""

import argparse
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted((ROOT / 'docs').glob('*.md'))
PAGES = [*DOCS, *sorted(ROOT.glob('*.md')), *sorted(ROOT.glob('configs/*/README.md'))]
# a comment before a fence names the test that has it, such as `config: own_data`
FENCE = re.compile(r'(<!-- \w+: \w+ -->\n)?^```(\w*)\n(.*?)^```', re.MULTILINE | re.DOTALL)
INLINE = re.compile(r'`((?:python tools/|tools/|mpvit )\w+[^`\n]* --?\w[^`]*)`')
WORDS = ('CONFIG', 'CHECKPOINT', 'DIR', 'IMAGE', 'FOLDER', 'VIDEO', 'WORK_DIR')
HEAVY = ('data', 'ecosystem', 'export', 'train')  # pages that train, export, or evaluate twice
# which tool a shell script starts, and which of its own positional arguments it keeps
SCRIPTS = {
    'dist_train': ('train', [0], 2),
    'dist_test': ('test', [0, 1], 3),
    'slurm_train': ('train', [2], 4),
    'slurm_test': ('test', [2, 3], 4),
}


@dataclass(frozen=True)
class Fence:
    """A block of a page: where it stands, its language, and whether another test has it."""

    place: str
    language: str
    text: str
    is_tested: bool


def fences(page: Path) -> Iterator[Fence]:
    text = page.read_text(encoding='utf-8')
    for match in FENCE.finditer(text):
        line = text.count('\n', 0, match.start(3)) + 1
        place = f'{page.relative_to(ROOT)}:{line}'
        yield Fence(place, match[2], match[3], bool(match[1]))


def commands(text: str) -> Iterator[list[str]]:
    """The command lines of a fence, as words; `<config>` and its like are one."""
    text = re.sub(r'<[^<>\n]+>', 'WORD', text)
    for line in text.replace('\\\n', ' ').splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


def tool_of(words: list[str]) -> tuple[str, list[str]] | None:
    """The tool that a command line calls and its arguments; None if it calls none."""
    for i, word in enumerate(words):
        if word == 'mpvit' and all('=' in before for before in words[:i]) and words[i + 1 :]:
            return words[i + 1], words[i + 2 :]
        script = re.fullmatch(r'(?:\./)?tools/(\w+)\.(?:py|sh)', word)
        if script:
            return script[1], words[i + 1 :]
    return None


class Parsed(Exception):
    """The tool has parsed its arguments, and that is far enough."""


def check_arguments(monkeypatch, name: str, arguments: list[str], whole: bool) -> None:
    """Fail if the tool does not take the arguments; unless ``whole``, only flags are looked at."""
    if name in SCRIPTS:
        name, kept, own = SCRIPTS[name]
        arguments = [*(arguments[i] for i in kept if i < len(arguments)), *arguments[own:]]
    real = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, args: object = None) -> None:
        parsers = [parser]
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
        if whole:
            for action in (action for each in parsers for action in each._actions):
                if action.type not in (int, float):
                    action.type = None  # the files need not be there
            real(parser, arguments)
        else:
            known = {flag for each in parsers for flag in each._option_string_actions}
            used = {word.partition('=')[0] for word in arguments if re.match(r'--?[a-z]', word)}
            assert used <= known, f'{name} has no {sorted(used - known)}'
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', stop)
    monkeypatch.setattr(sys, 'argv', [name])
    path = ROOT / 'tools' / f'{name}.py'
    assert path.is_file(), f'there is no tool {name}'
    with pytest.raises(Parsed):
        runpy.run_path(str(path), run_name='__main__')


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_arguments_are_those_of_the_tools(page, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    text = page.read_text(encoding='utf-8')
    found = [(match[1], False) for match in INLINE.finditer(text)]
    for fence in fences(page):
        if fence.language in ('', 'sh'):
            found += [(' '.join(map(shlex.quote, words)), True) for words in commands(fence.text)]
    for line, whole in found:
        call = tool_of(shlex.split(line))
        if call is None or call[0] == '--help':
            continue
        name, arguments = call
        # a work folder stands for its best checkpoint, but only where it is there
        arguments = [re.sub(r'^work_dirs/\w+$', 'best.pth', word) for word in arguments]
        whole = whole and not any(word.startswith('[') or '...' in word for word in arguments)
        try:
            with monkeypatch.context() as patch:
                check_arguments(patch, name, arguments, whole)
        except SystemExit:
            pytest.fail(f'{page.name}: {line}\n{capsys.readouterr().err}')


def find_more(checkpoint: Path) -> None:
    """Raise all scores: after two steps the detector is sure of nothing, and finds nothing."""
    content = torch.load(checkpoint, weights_only=False)
    for name, tensor in content['state_dict'].items():
        if re.fullmatch(r'bbox_head\.cls_branches\.\d+\.bias', name):
            tensor += 4
    torch.save(content, checkpoint)


@pytest.fixture
def small_things(tool, trained, toy, tmp_path, monkeypatch) -> dict[str, str]:
    """What the words of the documentation stand for, relative to the folder of the test."""
    shutil.copytree(trained, tmp_path / 'work')
    shutil.copytree(toy, tmp_path / 'data')
    find_more(tmp_path / 'work' / 'epoch_2.pth')
    config = tmp_path / 'work' / 'tiny.py'  # would write to the place of the training
    config.write_text(config.read_text().replace(str(trained), str(config.parent)))
    (tmp_path / 'out').mkdir()
    monkeypatch.chdir(tmp_path)
    images = sorted(Path('data/val2017').iterdir())
    video = cv2.VideoWriter('video.mp4', cv2.VideoWriter.fourcc(*'mp4v'), 10, (96, 96))
    for path in images[:3]:
        video.write(cv2.resize(cv2.imread(str(path)), (96, 96)))
    video.release()
    things = ('work/tiny.py', 'work/epoch_2.pth', 'data', str(images[0]), 'data/val2017')
    return dict(zip(WORDS, (*things, 'video.mp4', 'work'), strict=True))


def to_run(page: Path) -> list[Fence]:
    runs = [fence for fence in fences(page) if fence.language in ('sh', 'python')]
    return [fence for fence in runs if not fence.is_tested]


def pages_to_run() -> list:
    slow = pytest.mark.slow
    pages = [page for page in [ROOT / 'README.md', *DOCS] if to_run(page)]
    return [pytest.param(page, marks=slow if page.stem in HEAVY else ()) for page in pages]


@pytest.mark.parametrize('page', pages_to_run(), ids=lambda page: page.stem)
def test_commands_run(page, tool, small_things, monkeypatch):
    for fence in to_run(page):
        text = re.sub(rf'\b({"|".join(WORDS)})\b', lambda m: small_things[m[1]], fence.text)
        if fence.language == 'python':
            exec(compile(text, fence.place, 'exec'), {'__name__': 'documentation'})
            continue
        for words in commands(text):
            call = tool_of(words)
            assert call, f'{fence.place}: only the tools can be run here, not {words[0]}'
            name, arguments = call
            if name == '--help':
                continue  # tests/cli/test_cli.py
            result = tool(name, *arguments, status=None)
            assert result.status == 0, f'{fence.place}: {shlex.join(words)}\n{result.err}'


def test_a_misspelt_flag_is_found(monkeypatch, capsys):
    """The checks above can fail."""
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        check_arguments(patch, 'dist_train', ['CONFIG', '8', '--resum', 'x', '--wrong'], whole=True)
    with monkeypatch.context() as patch, pytest.raises(AssertionError, match=r"no \['--wrong'\]"):
        check_arguments(patch, 'dist_train', ['CONFIG', '8', '--wrong', '...'], whole=False)
    with monkeypatch.context() as patch, pytest.raises(AssertionError, match='no tool trian'):
        check_arguments(patch, 'trian', ['CONFIG'], whole=True)

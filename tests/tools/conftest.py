"""Running the tools as a user does, in this process to save the imports."""

import re
import runpy
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from runs import forget_earlier_runs


@dataclass
class Result:
    """What a tool left: exit status and output."""

    status: int
    out: str
    err: str


@pytest.fixture
def tool(root, monkeypatch, capfd):
    """Call a tool by name with arguments; it must end with a status, or with any if it is None."""
    monkeypatch.syspath_prepend(str(root / 'tools'))
    monkeypatch.chdir(root)

    def call(name: str, *arguments: object, status: int | None = 0) -> Result:
        monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
        code: object = 0
        forget_earlier_runs()
        capfd.readouterr()
        try:
            runpy.run_path(str(root / 'tools' / f'{name}.py'), run_name='__main__')
        except SystemExit as stop:
            code = stop.code or 0
        captured = capfd.readouterr()
        result = Result(code, captured.out, captured.err)
        if not isinstance(code, int):  # the interpreter prints a text and exits with 1
            result = Result(1, captured.out, f'{captured.err}{code}\n')
        assert status in (None, result.status), f'{name} ended with {result.status}: {result.err}'
        return result

    return call


@pytest.fixture
def refused(tool):
    """Call a tool that ends in one line with some words, without a traceback."""

    def call(name: str, *arguments: object, says: Iterable[str] = (), status: int = 1) -> Result:
        result = tool(name, *arguments, status=status)
        assert 'Traceback' not in result.out + result.err
        lines = result.err.strip().splitlines()
        errors = [line for line in lines if re.match(r'(\w+\.py( \w+)?: )?error: ', line)]
        assert errors == lines[-1:]  # one, and nothing after it
        for word in says:
            assert word in errors[0]
        return result

    return call


@pytest.fixture
def tiny_run(tool, tiny, tmp_path):
    """Train, or test a checkpoint, with the tiny config on its data; ``options`` override it."""

    def call(name, *words, config=tiny[0], options=(), work=tmp_path / 'work', run=tool, **more):
        arguments = (config, *words, '--work-dir', work, '--cfg-options', *tiny[1], *options)
        return run(name, *arguments, **more)

    return call


@pytest.fixture(scope='session')
def trained(tiny, tmp_path_factory):
    """Work folder of a finished tiny training, made through the package as the tool does."""
    from mpvit.engine.train import train

    config, places = tiny
    forget_earlier_runs()
    work = tmp_path_factory.mktemp('trained')
    train(config, work_dir=str(work), cfg_options=places)
    return work

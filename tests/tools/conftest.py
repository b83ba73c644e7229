"""Running the tools as a user does, in this process to save the imports."""

import runpy
import sys

import pytest
from mmdet.visualization import DetLocalVisualizer
from mmengine.logging import MMLogger


def forget_earlier_runs() -> None:
    """Loggers and visualizers are global by name; those of an earlier run write to its places."""
    MMLogger._instance_dict.clear()
    DetLocalVisualizer._instance_dict.clear()


class Result:
    """What a tool left: exit status and output."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def tool(root, monkeypatch, capfd):
    """Call a tool by name with arguments."""
    monkeypatch.syspath_prepend(str(root / 'tools'))
    monkeypatch.chdir(root)

    def call(name: str, *arguments: object) -> Result:
        monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
        status = 0
        forget_earlier_runs()
        capfd.readouterr()
        try:
            runpy.run_path(str(root / 'tools' / f'{name}.py'), run_name='__main__')
        except SystemExit as stop:  # the interpreter prints a text and exits with 1
            status = stop.code if isinstance(stop.code, int) else 1
            captured = capfd.readouterr()
            text = '' if isinstance(stop.code, int) else f'{stop.code}\n'
            return Result(status, captured.out, captured.err + text)
        captured = capfd.readouterr()
        return Result(status, captured.out, captured.err)

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

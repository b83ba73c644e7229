"""Every argument of every command that names an output is checked before the work begins."""

import argparse
import os

import pytest

from mpvit.cli import _main
from mpvit.cli._arguments import Parser
from mpvit.errors import UserError
from mpvit.files import paths

FLAGS = {'--out', '--json', '--picture', '--fix', '--fix-val', '--show-dir', '--work-dir', 'target'}
CHECKED = {
    paths.new_file,
    paths.new_folder,
    paths.new_picture,
    paths.output_folder,
    paths.pickle_file,
}
# `mpvit data` says what a folder holds if the dataset is there, also where nothing can be written
EXCEPTIONS = {'data target'}


def actions_of(parser):
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from actions_of(child)
        yield action


def output_arguments():
    for command in _main.commands():
        parser = Parser()
        _main.load(command).add_arguments(parser)
        for action in actions_of(parser):
            names = FLAGS & {*action.option_strings, action.dest}
            if names and action.type is not None:
                yield f'{command} {sorted(names)[0]}', action.type


ARGUMENTS = {name: kind for name, kind in output_arguments() if name not in EXCEPTIONS}


def test_all_commands_that_write_are_among_them():
    commands = {name.split()[0] for name in ARGUMENTS}
    assert commands >= {'train', 'test', 'infer', 'export', 'report', 'plot', 'check_dataset'}
    assert len(ARGUMENTS) >= 16


@pytest.mark.parametrize('argument', ARGUMENTS)
def test_a_place_that_cannot_be_written_is_refused_at_once(argument, tmp_path, monkeypatch):
    kind = ARGUMENTS[argument]
    assert kind in CHECKED
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'file').touch()
    (tmp_path / 'locked').mkdir(mode=0o555)
    (tmp_path / 'a.pkl').mkdir()
    suffix = {paths.pickle_file: '.pkl', paths.new_picture: '.png'}.get(kind, '')
    (tmp_path / f'nowhere{suffix}').symlink_to('gone')
    before = sorted(os.listdir(tmp_path))
    assert kind(f'new{suffix}') == f'new{suffix}'
    user = os.geteuid()
    if user == 0:  # who may do anything
        for folder in (tmp_path, *tmp_path.parents[:2]):
            folder.chmod(0o755)
        os.seteuid(65534)
    try:
        with pytest.raises(UserError, match=r'cannot be written \(Permission denied\)'):
            kind(f'locked/new{suffix}')
    finally:
        os.seteuid(user)
    for wrong in (f'{"x" * 300}{suffix}', f'file/new{suffix}', f'nowhere{suffix}', f'a\0{suffix}'):
        with pytest.raises((UserError, OSError)):
            kind(wrong)
    assert sorted(os.listdir(tmp_path)) == before

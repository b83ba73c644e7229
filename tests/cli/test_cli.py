"""The command `mpvit`, as another process: it is the tools, found wherever they are installed."""

import argparse
import os
import subprocess
import sys

import pytest

import mpvit
from mpvit.cli import _arguments as types
from mpvit.cli._main import commands


@pytest.fixture
def command(root, tmp_path):
    """Call `mpvit` from an empty folder."""

    def call(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, '-m', 'mpvit', *arguments],
            cwd=tmp_path,
            env=dict(os.environ, PYTHONPATH=str(root)),
            capture_output=True,
            text=True,
        )

    return call


def test_help_lists_every_tool_and_what_it_does(root, command):
    tools = {path.stem for path in (root / 'tools').iterdir() if path.suffix in ('.py', '.sh')}
    for result in (command('--help'), command('-h'), command()):
        assert result.returncode == 0
        listed = dict(
            line.split(maxsplit=1) for line in result.stdout.split('commands:\n')[1].splitlines()
        )
        assert set(listed) == {name for name in tools if not name.startswith('_')}
        assert listed['train'] == 'Train a detector'
        assert listed['dist_train'] == 'Train on several processes'


def test_every_command_is_also_a_tool(root):
    tools = {path.stem for path in (root / 'tools').glob('[!_]*.py')}
    assert tools == set(commands())


def test_nothing_heavy_is_imported(root):
    code = (
        'import sys; from mpvit.cli import _main; '
        '[_main.load(name) for name in _main.commands()]; '
        'print({"torch", "numpy", "mmengine"} & {*sys.modules})'
    )
    result = subprocess.run(
        [sys.executable, '-c', code], cwd=root, capture_output=True, text=True, check=True
    )
    assert result.stdout == 'set()\n'


def test_line_breaks_of_arguments_stay_out_of_the_message(command):
    for words in (('configs', '--x=a\nb'), ('no\nsuch',)):
        result = command(*words)
        assert result.returncode == 2
        assert result.stderr.splitlines()[-1].endswith(('--x=a b', 'lists the commands'))
        assert len([line for line in result.stderr.splitlines() if 'error: ' in line]) == 1


def test_version(command):
    assert command('--version').stdout == f'mpvit {mpvit.__version__}\n'


@pytest.mark.parametrize('name', ['check_dataset', 'check-dataset'])
def test_a_tool_gets_the_arguments_and_the_usage_names_the_command(command, name):
    result = command(name, '--workers', '0', 'data')
    assert result.returncode == 2
    assert result.stderr.startswith('usage: mpvit check_dataset [-h]')
    assert '--workers: choose from 1 to' in result.stderr


def test_a_shell_script(command):
    result = command('dist_train', 'mpvit_s_ddetr_50e', 'eight')
    assert result.returncode == 2
    assert 'error: dist_train.sh needs a number of processes' in result.stderr


def test_unknown_commands(command):
    result = command('trian', 'config.py')
    assert (result.returncode, result.stdout) == (2, '')
    assert result.stderr == 'error: there is no command trian; did you mean train?\n'
    assert '`mpvit --help` lists the commands' in command('frobnicate').stderr
    for name in ('predict', 'detect'):
        assert 'did you mean infer?' in command(name).stderr


def test_configs(root, command):
    listed = [line.split()[0] for line in command('configs').stdout.splitlines()]
    leaves = sorted((root / 'configs').glob('[!_]*/*.py'))
    assert listed == [path.stem for path in leaves]
    path = command('configs', 'mpvit_s_ddetr_50e').stdout.strip()
    assert os.path.samefile(path, root / 'configs/deformable_detr/mpvit_s_ddetr_50e.py')
    wrong = command('configs', 'mpvit_s_ddetr_5e')
    assert (wrong.returncode, wrong.stdout) == (1, '')
    assert wrong.stderr.startswith('error: config mpvit_s_ddetr_5e not found; did you mean')


@pytest.mark.parametrize(
    ('words', 'status'),
    [
        ('train', 2),
        ('test', 2),
        ('infer', 2),
        ('model_info', 2),
        ('train zzzzzz', 1),
        ('test zzzzzz.py none.pth', 1),
        ('train mpvit_s_ddetr_50', 1),
    ],
)
def test_who_names_no_config_is_told_where_names_are_listed(words, status, command, tmp_path):
    (tmp_path / 'configs').mkdir()  # not those of the package
    result = command(*words.split())
    assert result.returncode == status
    assert '`mpvit configs` lists' in result.stderr.splitlines()[-1]
    assert ('did you mean mpvit_s_ddetr_50e?' in result.stderr) == ('mpvit_s' in words)


@pytest.mark.parametrize('text', ['inf', 'nan', '-1'])
def test_numbers_are_finite_and_in_range(text):
    with pytest.raises(argparse.ArgumentTypeError, match='choose 0 or more'):
        types.number(float, 0)(text)

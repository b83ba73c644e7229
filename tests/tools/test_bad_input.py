"""How fast and by whom a mistake is answered; what is answered: test_bad_input_table.py."""

import os
import resource
import subprocess
import sys
import time

import pytest

TOY = 'configs/deformable_detr/mpvit_t_ddetr_toy.py'


def test_wrong_flags_answer_at_once_and_without_a_traceback(root):
    start = time.monotonic()
    for arguments in (['tools/train.py'], ['tools/test.py', '--eval', 'segm']):
        result = subprocess.run(
            [sys.executable, *arguments], cwd=root, capture_output=True, text=True, check=False
        )
        assert result.returncode == 2
        assert 'error: ' in result.stderr
        assert 'Traceback' not in result.stderr
    # importing torch alone takes longer than this on the machines the project is meant for
    assert time.monotonic() - start < 4


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['train', 'configs/deformable_detr/mpvit_s_ddetr_50.py'], 'mpvit_s_ddetr_50e.py?'),
        (['train', TOY, '--cfg-options', 'max_epochs'], "key=value, got 'max_epochs'"),
        (['train', TOY, '--resume', 'none.pth'], 'checkpoint none.pth not found'),
        (['train', TOY, '--work-dir', 'setup.py'], 'work folder setup.py is a file'),
        (['test', TOY, 'none.pth'], 'checkpoint none.pth not found'),
        (['test', TOY, 'auto'], 'checkpoint auto not found'),
        (['test', TOY, 'setup.py', '--out', 'x.json'], '--out x.json'),
        (['convert_checkpoint', 'none.pth', 'new.pth'], 'none.pth'),
        (['convert_checkpoint', 'setup.py', 'README.md'], 'README.md exists already'),
        (['demo', '--config', 'none.py'], 'config none.py not found'),
        (['train', TOY, '--data', 'none'], 'folder none not found'),
        (['train', TOY, '--train-ann', 'none.json'], 'annotation file none.json not found'),
        (['test', TOY, 'setup.py', '--data', 'setup.py'], 'setup.py is a file; name the folder'),
        (['convert_dataset', 'none', 'new'], 'folder none not found'),
        (['convert_dataset', 'docs', 'tests'], 'tests exists already'),
    ],
)
def test_what_arguments_and_files_tell_is_answered_at_once(root, arguments, message):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(
        [sys.executable, f'tools/{arguments[0]}.py', *arguments[1:]],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 1
    assert result.stdout == ''
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith('error: ')
    assert message in result.stderr
    # on the CPU; a tenth of it in truth, and importing the package takes several times as long
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


@pytest.mark.parametrize(
    ('rank', 'every_rank', 'text'),
    [
        (None, False, 'error: lost'),
        (None, True, 'error: lost'),
        ('0', False, 'error: lost'),
        ('3', False, ''),  # the first process says it
        ('3', True, 'error (rank 3): lost'),
    ],
)
def test_which_process_of_a_distributed_run_speaks(root, rank, every_rank, text):
    environment = {key: value for key, value in os.environ.items() if key != 'RANK'}
    code = (
        'from mpvit.cli._main import behind_the_door\n'
        'from mpvit.errors import UserError\n'
        f'def main(): raise UserError("lost", every_rank={every_rank})\n'
        'behind_the_door(main)'
    )
    result = subprocess.run(
        [sys.executable, '-c', code],
        cwd=root,
        env={**environment, 'PYTHONPATH': str(root), **({'RANK': rank} if rank else {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.strip() == text


def test_several_mistakes_are_a_line_each(root):
    code = (
        'from mpvit.cli._main import behind_the_door\n'
        'from mpvit.errors import UserError\n'
        'def main(): raise UserError("one\\nline", "another")\n'
        'behind_the_door(main)'
    )
    result = subprocess.run(
        [sys.executable, '-c', code],
        cwd=root,
        env={**os.environ, 'PYTHONPATH': str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.splitlines() == ['error: one line', 'error: another']


def test_message_reaches_the_terminal_of_a_real_process(root):
    result = subprocess.run(
        [sys.executable, 'tools/train.py', 'configs/none.py'],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith('error: config configs/none.py not')
    assert 'Traceback' not in result.stderr
    assert result.stdout == ''

"""What the terminal shows of a training and a test."""

import re

import pytest
from runs import log_of

QUIET = ['console_log_level=WARNING']


def test_a_training_shows_what_matters(tiny_run, tmp_path):
    often = [*QUIET, 'default_hooks.screen.seconds=0']
    result = tiny_run('train', '--amp', 'bf16', options=often)
    lines = result.out.splitlines()
    steps = [line for line in result.err.splitlines() if line.startswith('step ')]
    header = next(i for i, line in enumerate(lines) if 'AP50' in line)
    start, end = lines[:header], lines[header:]
    assert len(start) <= 15
    facts = ['Model .*MPViT', 'Data .*8 images to train, 6 to validate', 'Classes .*circle']
    facts += [
        'Batch .*4 images a step',
        'Device .*, mixed precision, bf16',
        'Outputs .*work',
        'Backbone MPViT',
    ]
    for fact in facts:
        assert any(re.match(fact, line) for line in start), fact
    assert len(steps) == 4
    assert re.match(r'step 1/4, loss \d+\.\d+, lr \S+, \d+\.\d+ s a step, 0:0', steps[0])
    assert 'AP 0.' in steps[-1]  # that of the evaluation before it
    assert sum('AP50' in line for line in lines) == 1
    commands = [line.strip() for line in end if line.startswith('  mpvit')]
    assert [command.split()[1] for command in commands] == ['test', 'infer', 'export']
    config, checkpoint = commands[0].split()[2:]
    assert (tmp_path / 'work' / 'tiny.py').samefile(config)
    assert (tmp_path / 'work').glob(checkpoint.rpartition('/')[2])
    log = log_of(tmp_path / 'work')
    assert 'Hooks will be executed' in log  # and the rest is in the log file
    assert 'Checkpoints will be saved' in log
    assert 'FileClient' not in log  # mmengine's warning about what it calls itself
    shown = tiny_run('test', checkpoint, options=QUIET).out
    assert len(shown.splitlines()) <= 30
    assert re.search(r'AP +AP50', shown)


@pytest.mark.parametrize('name', ['train', 'test'])
def test_on_a_terminal_there_is_a_bar(tiny_run, trained, monkeypatch, name):
    monkeypatch.setattr('sys.stderr.isatty', lambda: True, raising=False)
    words = [trained / 'epoch_2.pth'] if name == 'test' else []
    result = tiny_run(name, *words, options=QUIET)
    assert re.search(f'{name}ing: +100%', result.err)
    assert 'step 1/' not in result.out


def test_a_training_that_ends_early_says_so(tiny_run):
    result = tiny_run('train', '--epochs', '4', '--early-stop', '1', options=QUIET)
    assert re.search(r'^Ended at step [46] of 8 after ', result.out, re.MULTILINE)

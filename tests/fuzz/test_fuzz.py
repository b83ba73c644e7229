"""Hostile inputs for every command (`make fuzz` runs more of them)."""

import random
import subprocess
import sys

import fuzz.cases
from fuzz.commands import EXCLUDED, LINES, WEIGHTS
from runs import environment

from mpvit.cli._main import commands

SEED, CASES = 5, 200


def test_every_command_is_run_or_left_out_for_a_reason():
    assert set(LINES) == set(WEIGHTS)
    assert sorted([*LINES, *EXCLUDED]) == commands()


def test_a_case_is_the_same_each_time():
    for number in range(50):
        (first, one), (second, two) = (fuzz.cases.case(3, number) for _ in range(2))
        assert first == second
        assert one.getstate() == two.getstate()
    assert random.Random('3:0').random() != random.Random('3:1').random()


def test_hostile_inputs(root):
    words = ['tests/fuzz', '--seed', str(SEED), '--cases', str(CASES), '--jobs', '2']
    found = subprocess.run(
        [sys.executable, *words], cwd=root, env=environment(root), capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert f'{CASES} cases, 0 outside the contract' in found.stdout

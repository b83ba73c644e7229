"""Hostile inputs for every command (`make fuzz` runs more of them)."""

import random

import fuzz.cases
from fuzz.commands import EXCLUDED, LINES, WEIGHTS

from mpvit.cli._main import commands


def test_every_command_is_run_or_left_out_for_a_reason():
    assert set(LINES) == set(WEIGHTS)
    assert sorted([*LINES, *EXCLUDED]) == commands()


def test_a_case_is_the_same_each_time():
    for number in range(50):
        (first, one), (second, two) = (fuzz.cases.case(3, number) for _ in range(2))
        assert first == second
        assert one.getstate() == two.getstate()
    assert random.Random('3:0').random() != random.Random('3:1').random()

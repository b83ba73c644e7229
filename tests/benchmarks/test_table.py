"""Turns, peak memory, noise, the time that scripts get, and the markdown of the table."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import _machine, _timing, table
from benchmarks._machine import Noise
from benchmarks._timing import Contender, Row

QUIET = Noise(others=0.01, stolen=0.0, drift=0.05, load=0.2)


def sleeping(log, name: str, seconds: float):
    def run():
        with log.open('a') as file:
            file.write(name)
        time.sleep(seconds)
        return [np.arange(2)]

    return run


def failing():
    raise ValueError('no such model')


def test_contenders_take_turns_and_one_that_fails_does_not_stop_them(tmp_path):
    log = tmp_path / 'log'
    turns = _timing.in_turn(
        {
            'a': Contender(sleeping, (log, 'a', 0.01)),
            'b': Contender(sleeping, (log, 'b', 0.05)),
            'c': Contender(failing),
        },
        runs=3,
    )
    assert log.read_text() == 'ab' + 'ab' + 'ba' + 'ab'  # the first calls are not timed
    assert len(turns.seconds['a']) == 3
    assert turns.outputs['a'][0].tolist() == [0, 1]
    row = turns.row('what', 'against', ('a', 'b'), 2, 'note')
    assert 1.5 < row.ratio < 10
    assert row.spread[0] <= row.ratio <= row.spread[1]
    assert row.note.endswith('; note')
    row = turns.row('what', 'against', ('a', 'c'), 2)
    assert row.ratio is None
    assert 'no such model' in row.note


def test_no_round_begins_after_the_limit(tmp_path):
    contenders = {'a': Contender(sleeping, (tmp_path / 'log', 'a', 0.01))}
    turns = _timing.in_turn(contenders, runs=100, limit=0)
    assert len(turns.seconds['a']) == 2


def allocate(mebibytes: int, before: int):
    kept = np.ones(before << 17)  # doubles
    return lambda: np.ones(mebibytes << 17) + kept.sum()


def test_peak_memory_counts_what_the_action_adds():
    memory = _timing.peak_memory(Contender(allocate, (100, 300)))
    assert memory.added == pytest.approx(100, abs=8)
    assert memory.resident > 400


def writes(path, *variables: str):
    return lambda: path.write_text(' '.join(map(os.environ.__getitem__, variables)))


def test_a_contender_has_its_own_environment(tmp_path, monkeypatch):
    monkeypatch.setenv('BENCHMARK_KEPT', 'before')
    there = dict(BENCHMARK_NEW='new', BENCHMARK_KEPT='after')
    _timing.in_turn({'a': Contender(writes, (tmp_path / 'there', *there), there)}, runs=1)
    assert os.environ['BENCHMARK_KEPT'] == 'before'
    assert 'BENCHMARK_NEW' not in os.environ
    assert (tmp_path / 'there').read_text() == 'new after'


def test_markdown_says_reached_missed_and_not_measured():
    rows = [
        Row('a', 'b', 12.34, (11.0, 13.0), 10, 'fast'),
        Row('c', 'd', 1.5, None, 2),
        Row('e', 'f', 0.614, None, 0.6, unit='%'),
        Row('g', 'h', None, None, 3.5, 'no such CPU'),
        Row('i', 'j', 3.0),
        Row('k', '', 223.4, unit='GFLOP/s'),
    ]
    assert _timing.markdown(rows).splitlines()[2:] == [
        '| a | b | **12.3x** (11x to 13x) | 10x, reached | fast |',
        '| c | d | **1.5x** | 2x, **missed** |  |',
        '| e | f | **61 %** | 60 %, reached |  |',
        '| g | h | not measured | 3.5x | no such CPU |',
        '| i | j | **3x** |  |  |',
        '| k |  | **223 GFLOP/s** |  |  |',
    ]


@pytest.mark.parametrize('name', _machine.LIMITS)
def test_noise_above_a_limit_is_named_in_one_line(name):
    limit = _machine.LIMITS[name]
    assert QUIET.refusal() is None
    assert dataclasses.replace(QUIET, **{name: limit}).refusal() is None
    reason = dataclasses.replace(QUIET, **{name: 2 * limit}).refusal()
    assert f'{2 * limit:.0%} (at most {limit:.0%})' in reason
    assert '\n' not in reason


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc/stat')
def test_what_other_processes_take_is_noise_and_what_ours_take_is_not(monkeypatch):
    work = [sys.executable, '-c', 'import time; e = time.time() + .6\nwhile time.time() < e: 0']
    ticks = os.sysconf('SC_CLK_TCK')
    clock = _machine._clock()
    subprocess.run(work, check=True)
    own = _machine._clock()
    monkeypatch.setattr(os, 'times', lambda: (0.0,) * 5)  # as if all of it were of others
    other = _machine._clock()
    assert own[0] > clock[0]
    assert other[1] - own[1] > 0.2 > 2 / ticks


def whole(noise: Noise = QUIET, quick: bool = False) -> dict:
    rows = {script: [Row(script, 'others', 2.0, (1.5, 2.5), 1)] for script in table.SCRIPTS}
    seconds = dict.fromkeys(rows, 60.0)
    return dict(machine={'CPU': 'some'}, noise=noise, quick=quick, seconds=seconds, rows=rows)


def test_the_table_of_the_page_is_replaced_and_its_figures_lie_beside_it(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('a\n\n<!-- benchmarks -->\nold\n<!-- /benchmarks -->\n\nb\n')
    for _ in range(2):
        table.publish(whole(), page)
    text = page.read_text()
    assert text.startswith('a\n\n<!-- benchmarks -->\n- CPU: some\n')
    assert text.endswith('<!-- /benchmarks -->\n\nb\n')
    assert text.count('| detector | others | **2x** (1.5x to 2.5x) | 1x, reached |  |') == 1
    data = json.loads((tmp_path / 'page.json').read_text())
    assert data['noise']['others'] == QUIET.others
    rows = [table.row_from(fields) for fields in data['rows']['detector']]
    assert rows == whole()['rows']['detector']


@pytest.mark.parametrize(
    ('results', 'reason'),
    [
        (whole(dataclasses.replace(QUIET, others=0.3)), 'too noisy: other processes took 30%'),
        (whole(quick=True), 'full size'),
        (whole() | dict(rows={}), 'full size'),
    ],
)
def test_a_page_stays_as_it_is(tmp_path, results, reason):
    page = tmp_path / 'page.md'
    page.write_text('<!-- benchmarks -->\nold\n<!-- /benchmarks -->\n')
    with pytest.raises(SystemExit, match=reason):
        table.publish(results, page)
    assert [path.name for path in tmp_path.iterdir()] == ['page.md']
    assert 'old' in page.read_text()


def test_a_page_without_markers_is_refused(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('no markers')
    with pytest.raises(SystemExit, match='has no lines'):
        table.publish(whole(), page)
    assert not (tmp_path / 'page.json').exists()


def test_all_scripts_together_take_half_an_hour_at_most():
    assert sum(table.SCRIPTS.values()) <= table.WHOLE - 30
    assert table.plan(table.SCRIPTS).startswith('at most 29 minutes: attention ')


SCRIPT = """
import os, subprocess, sys, time
from pathlib import Path
from benchmarks._timing import Row

def rows(quick):
    yield Row('first', 'others', 2.0, (1.0, 3.0))
    if {ending!r} == 'slow':
        child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
        Path({pid!r}).write_text(str(child.pid))
        time.sleep(60)
    if {ending!r} == 'raises':
        raise ValueError('no such model')
    os._exit(3)
"""


@pytest.mark.parametrize(
    ('ending', 'note'),
    [('slow', 'stopped after'), ('raises', 'no such model'), ('dies', 'status 3')],
)
def test_rows_that_were_known_stay_whatever_becomes_of_the_script(
    tmp_path, monkeypatch, ending, note
):
    pid = tmp_path / 'pid'
    (tmp_path / 'made_up_script.py').write_text(SCRIPT.format(ending=ending, pid=str(pid)))
    monkeypatch.syspath_prepend(tmp_path)
    seconds = 8 if ending == 'slow' else 60
    first, last = table.measure('made_up_script', quick=True, seconds=seconds)
    assert first == Row('first', 'others', 2.0, (1.0, 3.0))
    assert last.ratio is None
    assert note in last.note
    if ending == 'slow':  # and what it had started is gone
        command = Path(f'/proc/{pid.read_text()}/cmdline')  # empty for one that ended
        deadline = time.monotonic() + 20  # of a busy machine
        while command.exists() and command.read_bytes() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not command.exists() or not command.read_bytes()

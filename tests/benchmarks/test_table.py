"""Pairs, peak memory and the markdown of the table."""

import os
import time

import numpy as np
import pytest

from benchmarks import _timing, table
from benchmarks._timing import Row


def test_paired_takes_turns_and_divides_pair_by_pair():
    order = []

    def ours():
        order.append('ours')
        time.sleep(0.01)

    def theirs():
        order.append('theirs')
        time.sleep(0.05)

    pairs = _timing.paired(ours, theirs, runs=4, warmup=1)
    assert order == ['ours', 'theirs'] + ['ours', 'theirs', 'theirs', 'ours'] * 2
    assert len(pairs.ratios) == 4
    low, high = pairs.spread
    assert low <= pairs.ratio <= high
    assert 1.5 < pairs.ratio < 10
    row = pairs.row('what', 'against', 2, 'note')
    assert row.ratio == pairs.ratio
    assert row.note.endswith('; note')


def allocate(mebibytes: int, before: int):
    kept = np.ones(before << 17)  # doubles
    return lambda: np.ones(mebibytes << 17) + kept.sum()


def test_peak_memory_counts_what_the_action_adds():
    assert _timing.peak_memory(allocate, 100, 300) == pytest.approx(100, abs=8)


def writes(path, *variables: str):
    return lambda: path.write_text(' '.join(map(os.environ.__getitem__, variables)))


def test_an_action_elsewhere_has_its_own_environment(tmp_path, monkeypatch):
    monkeypatch.setenv('BENCHMARK_KEPT', 'before')
    there = dict(BENCHMARK_NEW='new', BENCHMARK_KEPT='after')
    with _timing.elsewhere(writes, tmp_path / 'there', *there, **there) as action:
        assert os.environ['BENCHMARK_KEPT'] == 'before'
        assert 'BENCHMARK_NEW' not in os.environ
        action()
    assert (tmp_path / 'there').read_text() == 'new after'


def die():
    os._exit(1)


def test_a_process_that_dies_is_an_error():
    with pytest.raises(Exception, match='terminated abruptly'):
        _timing.in_process(die)


def test_markdown_says_reached_missed_and_not_measured():
    rows = [
        Row('a', 'b', 12.34, (11.0, 13.0), 10, 'fast'),
        Row('c', 'd', 1.5, None, 2),
        Row('e', 'f', 0.614, None, 0.6, unit='%'),
        Row('g', 'h', None, None, 3.5, 'no such CPU'),
        Row('i', 'j', 3.0),
    ]
    assert _timing.markdown(rows).splitlines()[2:] == [
        '| a | b | **12.3x** (11x to 13x) | 10x, reached | fast |',
        '| c | d | **1.5x** | 2x, **missed** |  |',
        '| e | f | **61 %** | 60 %, reached |  |',
        '| g | h | not measured | 3.5x | no such CPU |',
        '| i | j | **3x** |  |  |',
    ]


def test_update_replaces_what_stands_between_the_markers(tmp_path):
    readme = tmp_path / 'README.md'
    readme.write_text(f'a\n\n{table.BEGIN}\nold\n{table.END}\n\nb\n')
    for text in ('new', 'newer'):
        table.update(readme, text)
    assert readme.read_text() == f'a\n\n{table.BEGIN}\nnewer\n{table.END}\n\nb\n'
    readme.write_text('no markers')
    with pytest.raises(SystemExit, match='has no lines'):
        table.update(readme, 'x')


def test_a_missing_package_is_a_row_that_says_so(monkeypatch):
    monkeypatch.setitem(table.SCRIPTS, 'huggingface', ('no_such_package',))
    ((row,),) = table.measure(['huggingface'], quick=True, threads=1).values()
    assert row.ratio is None
    assert 'no_such_package' in row.note

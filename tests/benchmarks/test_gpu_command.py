"""`make gpu`: its parts on a CPU in small, what it does with their rows, and without a GPU."""

import importlib
import json
import sys

import pytest
import torch

from benchmarks import gpu, gpu_parts, table
from benchmarks._timing import Row

REPORT = """<testsuites><testsuite name="pytest" tests="5">
<testcase name="test_op[fp32-a]" time="1.5"/>
<testcase name="test_op[bf16-a]" time="0.5"><failure message="too far&#10;by a lot">...</failure>
</testcase>
<testcase name="test_op[fp16-a]" time="0.1"><skipped message="cuda: not built"/></testcase>
<testcase name="test_two_gpus" time="0"><skipped message="needs two CUDA devices"/></testcase>
<testcase name="test_amp" time="3"><system-out>printed</system-out></testcase>
</testsuite></testsuites>
"""


@pytest.mark.slow  # trains, and compiles the kernels of every part
@pytest.mark.parametrize('part', gpu.PARTS)
def test_every_part_runs_on_a_cpu(part):
    module, function = gpu.PARTS[part][0].split(':')
    rows = list(getattr(importlib.import_module(module), function)(quick=True, device='cpu'))
    assert len({row.what + row.against for row in rows}) == len(rows)
    assert not any('failed' in row.note for row in rows)
    assert all(row.note for row in rows if row.ratio is None)
    if part != 'tests':  # which are skipped
        ours = [row for row in rows if row.against not in ('deformops', 'torch-ms-deform-attn')]
        assert all(row.ratio is not None and row.ratio >= 0 for row in ours)


def test_a_report_of_pytest_becomes_rows(tmp_path):
    (tmp_path / 'report.xml').write_text(REPORT)
    op, two, amp = gpu_parts.outcomes(tmp_path / 'report.xml')
    assert (op.what, op.ratio, op.unit) == ('test: op', 0.5, '%')
    assert op.note == '2 run, 2 s; failed: too far; skipped: cuda: not built'
    assert (two.ratio, amp.ratio) == (None, 1.0)
    assert 'two CUDA devices' in two.note


def test_a_cuda_graph_is_the_work_itself_on_a_cpu():
    assert gpu_parts.captured(tuple, 'cpu') is tuple


def test_tf32_is_allowed_for_as_long_as_it_is_measured():
    with gpu_parts.tf32(True):
        assert torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Two parts, of which the first fails after a row."""
    (tmp_path / 'made_up_parts.py').write_text(
        'from benchmarks._timing import Row\n'
        'def good(quick, device):\n'
        '    yield Row("speed", "", 3.0, note=device, unit="images/s")\n'
        'def bad(quick, device):\n'
        '    yield from good(quick, device)\n'
        '    raise ValueError("no such kernel")\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    parts = {name: (f'made_up_parts:{name}', 60) for name in ('bad', 'good')}
    monkeypatch.setattr(gpu, 'PARTS', parts)


def test_a_part_that_fails_is_named_and_the_others_go_on(parts, tmp_path):
    results = gpu.run(list(gpu.PARTS), 'cpu', quick=False)
    speed = Row('speed', '', 3.0, note='cpu', unit='images/s')
    bad, good = results['rows'].values()
    assert good == [speed] == bad[:1]
    assert 'no such kernel' in bad[1].note
    page = tmp_path / 'gpu.md'
    page.write_text('Before.\n\n<!-- gpu -->\nold\n<!-- /gpu -->\n\nAfter.\n')
    table.publish(results, page, 'gpu', gpu.PARTS)
    text = page.read_text()
    assert text.startswith('Before.')
    assert text.endswith('After.\n')
    assert '| speed |  | **3 images/s** |  | cpu |' in text
    assert 'old' not in text
    stored = json.loads(page.with_suffix('.json').read_text())
    assert stored['rows']['good'][0]['ratio'] == 3
    for changes in (dict(quick=True), dict(rows={})):
        with pytest.raises(SystemExit, match='stays as it is'):
            table.publish({**results, **changes}, page, 'gpu', gpu.PARTS)
    page.write_text('')
    with pytest.raises(SystemExit, match='<!-- gpu -->'):
        table.publish(results, page, 'gpu', gpu.PARTS)


def test_the_page_has_a_place_for_the_table():
    text = gpu.PAGE.read_text()
    assert text.index('<!-- gpu -->') < text.index('<!-- /gpu -->')


def test_the_parts_fit_into_nine_minutes():
    assert sum(limit for _, limit in gpu.PARTS.values()) < 540
    assert table.ROOT == gpu_parts.ROOT


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
@pytest.mark.parametrize(
    ('cuda', 'says'), [(None, 'built without CUDA'), ('13.0', 'no NVIDIA driver|torch sees no GPU')]
)
def test_without_a_gpu_one_line_says_what_is_missing(monkeypatch, cuda, says):
    monkeypatch.setattr(sys, 'argv', ['gpu'])
    monkeypatch.setattr(torch.version, 'cuda', cuda)
    with pytest.raises(SystemExit, match=f'^error: no GPU to measure: .*({says})') as refusal:
        gpu.main()
    assert '\n' not in str(refusal.value)

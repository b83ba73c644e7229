"""The plan's arithmetic against figures worked out by hand, and the documented configs."""

import gc
import math

import pytest
import torch

from benchmarks import scale
from benchmarks.scale import COCO, OBJECTS365, make_plan

RATE = 1e13


def test_steps_of_an_epoch_halve_with_twice_the_gpus():
    assert make_plan(COCO, 1, RATE).steps == 59_143
    assert make_plan(COCO, 8, RATE).steps == 7_392  # 16 images a step, the rest is dropped
    assert make_plan(COCO, 16, RATE).steps == 3_696
    assert make_plan(COCO, 8, RATE, batch=4).steps == 3_696


def test_ring_sends_the_gradients_twice_less_one_share():
    gradients = 4 * 34_445_534
    assert scale.allreduce_bytes(1) == 0
    assert scale.allreduce_bytes(2) == gradients
    assert scale.allreduce_bytes(8) == pytest.approx(gradients * 14 / 8)
    assert scale.allreduce_bytes(64) == pytest.approx(gradients * 126 / 64)


def test_machines_are_joined_by_the_slower_network(monkeypatch):
    monkeypatch.setattr(scale, 'BUS', (4.0, 2.0))
    monkeypatch.setattr(scale, 'LATENCY', (3.0, 5.0))
    monkeypatch.setattr(scale, 'PARAMETERS', 8)
    monkeypatch.setattr(scale, 'SYNC_NORMS', 10)
    one, eight, many = (make_plan(COCO, gpus, RATE) for gpus in (1, 8, 16))
    assert (one.gradients, one.norms) == (0, 0)
    assert (eight.gradients, eight.norms) == (32 * 14 / 8 / 4, 20 * 3)
    assert (many.gradients, many.norms) == (32 * 30 / 16 / 2, 20 * 5)


def test_hours_are_steps_and_validations():
    plan = scale.Plan(100, 2.0, 0.5, 0.5, 60.0, 0, 0, 0, 0)
    assert plan.hours(12) == pytest.approx((12 * 300 + 12 * 60) / 3600)
    assert plan.hours(12, val_interval=5) == pytest.approx((12 * 300 + 2 * 60) / 3600)
    assert plan.hours(24) == pytest.approx(2 * plan.hours(12))


def test_a_measured_step_takes_that_long():
    rate = scale.rate_of(0.5)
    assert 2 * scale.step_flops(scale.FORWARD_FLOPS, 800 * 1333) / rate == pytest.approx(0.5)


def test_published_hours_come_out_for_the_published_training(monkeypatch):
    rate = scale.sustained_flops('V100')
    monkeypatch.setattr(scale, 'FORWARD_FLOPS', scale.FORWARD_FLOPS_R50)
    plan = make_plan(COCO, 16, rate)
    assert plan.steps * 50 * plan.compute * 16 / 3600 == pytest.approx(325, rel=1e-3)


def test_resizing_keeps_the_ratio_and_both_limits():
    assert scale.shorten(480, 640, 800) == (800, pytest.approx(1066.7, abs=0.1))
    assert scale.shorten(200, 640, 800) == (pytest.approx(416.6, abs=0.1), 1333)


def test_padding_only_adds_and_waiting_only_lengthens():
    alone, pairs = scale.padded_pixels(1), scale.padded_pixels(2)
    # 4:3 without crops: the mean of 4/3 s^2; crops are nearly square, so below
    whole = sum(s * s for s in range(480, 801, 32)) / 11 * 4 / 3
    assert 0.8 * whole < sum(alone) / len(alone) < 1.02 * whole
    assert sum(pairs) / len(pairs) > 1.1 * sum(alone) / len(alone)
    means = [scale.slowest_pixels(gpus, 2) for gpus in (1, 8, 64)]
    assert means[0] < means[1] < means[2] <= 1333 * 1333


def test_host_needs_grow_with_the_ranks_of_a_machine():
    one, eight, many = (make_plan(OBJECTS365, gpus, RATE) for gpus in (1, 8, 64))
    assert eight.peak == pytest.approx(8 * one.peak)
    assert many.kept == eight.kept  # per machine
    assert eight.reads == pytest.approx(16 / eight.step * 367e9 / 1_822_289)  # 16 files a step
    assert one.reads < eight.reads < 8 * one.reads  # waiting and talking cost some
    assert math.isclose(
        one.reads / OBJECTS365.file_bytes * scale.PIPELINE_SECONDS, one.cores, rel_tol=1e-9
    )


def test_memory_is_state_and_images():
    line = scale.LIVE_BYTES['fp32']
    state = 34_445_534 * 16
    expected = state + 2 * (line[0] + line[1] * 1e6)
    assert scale.memory('fp32', 1e6, 2, gpus=1) == pytest.approx(expected)
    assert scale.memory('fp32', 1e6, 2, gpus=8) == pytest.approx(expected + 34_445_534 * 4)


def test_tables_take_a_measured_step(capsys, monkeypatch):
    monkeypatch.setattr('sys.argv', ['scale', '--step-seconds', '0.25'])
    scale.main()
    printed = capsys.readouterr().out
    assert f'{scale.rate_of(0.25) / 1e12:.1f} T | your `--step-seconds`' in printed
    assert 'V100' not in printed
    assert printed.count('| assumed |') >= 5


def test_page_shows_what_the_script_prints(capsys, monkeypatch, root):
    monkeypatch.setattr('sys.argv', ['scale'])
    scale.main()
    page = (root / 'docs' / 'scale.md').read_text().splitlines()
    printed = [line for line in capsys.readouterr().out.splitlines() if line]
    assert len(printed) > 40
    assert [line for line in printed if line not in page] == []


def test_live_peak_counts_what_is_alive_at_one_time():
    from benchmarks.scale_inputs import LivePeak

    gc.collect()
    before = torch.ones(1000)
    with LivePeak() as memory:
        first = before + 1
        second = first * 2
        first.add_(1)  # in place: nothing new
        view = second[:10]
        del first, second
        gc.collect()
        third = view.sum() + torch.zeros(500)
    assert memory.peak == pytest.approx(8000, abs=100)  # first and second
    assert memory.live == pytest.approx(6000, abs=100)  # second through its view, and third
    assert third.numel() == 500


def test_line_passes_through_both_sizes():
    from benchmarks.scale_inputs import line

    found = line(lambda size: 7 + 3 * size[0] * size[1], [(2, 5), (4, 8)])
    assert found == (pytest.approx(7), pytest.approx(3))

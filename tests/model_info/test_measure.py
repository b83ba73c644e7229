"""Memory and time against what is known of them."""

import time

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from mpvit.config.reading import load_config
from mpvit.model_info.info import random_detector
from mpvit.model_info.measure import (
    kept_for_backward,
    latency,
    made_up,
    peak_memory,
    predict,
)

CPU = torch.device('cpu')
MIB = 2**20


class Sleepy(nn.Module):
    """A detector that takes a known time and keeps known tensors."""

    def __init__(self):
        super().__init__()
        self.backbone, self.neck, self.spare = nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Identity()
        self.calls = 0

    def forward(self, image, samples, mode):
        self.calls += 1
        time.sleep(0.02 if self.calls > 2 else 0.5)
        return self.neck(self.backbone(image)).sum()


def test_latency_leaves_out_the_first_runs():
    model = Sleepy()
    times = latency(model, made_up((8, 8), CPU), ['backbone', 'spare'], runs=3)
    assert {name: len(runs) for name, runs in times.items()} == {'': 3, 'backbone': 3, 'spare': 3}
    assert model.calls == 5
    assert all(0.02 <= seconds < 0.4 for seconds in times[''])
    assert all(
        0 < part < whole - 0.01 for part, whole in zip(times['backbone'], times[''], strict=True)
    )
    assert times['spare'] == [0, 0, 0]
    assert not model._forward_hooks


def test_kept_tensors_are_counted_once_and_without_weights():
    kept = kept_for_backward(Sleepy(), made_up((8, 16), CPU), ['backbone', 'neck', 'spare'])
    pixels = 4 * 8 * 16  # bytes of a channel
    # the convolution keeps the image, ReLU its result
    assert kept == {'': 7 * pixels, 'backbone': 3 * pixels, 'neck': 4 * pixels, 'spare': 0}


def test_peak_is_that_of_what_is_alive_at_a_time():
    def action():
        first = torch.empty(64 * MIB, dtype=torch.uint8)
        del first
        both = torch.empty(48 * MIB, dtype=torch.uint8), torch.empty(32 * MIB, dtype=torch.uint8)
        del both
        torch.empty(16 * MIB, dtype=torch.uint8)

    for _ in range(2):  # what came before does not matter
        assert peak_memory(action, CPU) == pytest.approx(80 * MIB, abs=MIB)
    assert peak_memory(lambda: None, CPU) == 0


@pytest.fixture(scope='module')
def detector(root):
    return random_detector(load_config(root / 'tests/data/tiny.py'))


def test_what_training_keeps_is_what_stays_allocated(detector):
    """After the losses, before the backward pass, the allocator holds that and little else."""
    inputs = made_up((224, 256), CPU)
    kept = kept_for_backward(detector, inputs, ['backbone', 'encoder'])
    image, samples = inputs
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        losses = detector(image, samples, mode='loss')
    held = sum(event.cpu_memory_usage for event in profiler.events() if event.cpu_parent is None)
    assert losses
    assert kept[''] == pytest.approx(held, rel=0.05)
    assert kept['backbone'] + kept['encoder'] < kept['']


def test_peak_at_inference_is_below_what_training_keeps(detector):
    inputs = made_up((224, 256), CPU)
    kept = kept_for_backward(detector, inputs, [])['']
    peak = peak_memory(lambda: predict(detector.eval(), inputs), CPU)
    assert 0 < peak < kept


@pytest.mark.gpu
def test_peak_on_a_gpu():
    device = torch.device('cuda')
    peak = peak_memory(lambda: torch.empty(64 * MIB, dtype=torch.uint8, device=device), device)
    assert peak == pytest.approx(64 * MIB, rel=0.05)

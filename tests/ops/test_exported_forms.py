"""The forms of deformable attention in exported graphs."""

import attention_cases
import pytest
import torch
from torch import nn

from mpvit.ops.msda import gather, grid_sample, reference
from mpvit.ops.msda import op as attention
from mpvit.ops.msda.module import sampling_locations

SHAPES = [(6, 8), (3, 4)]
forms = pytest.mark.parametrize('form', [grid_sample, gather], ids=attention.EXPORTED_FORMS)


def inputs_of(dtype=torch.float64):
    _, value, _, locations, weights = attention_cases.make_inputs('partly outside', dtype)
    locations[0, 0] = torch.tensor([0.0, 1.0])  # exact corners
    return value, locations.to(dtype), weights


@pytest.mark.parametrize('shapes', [SHAPES, torch.tensor(SHAPES)], ids=['pairs', 'tensor'])
@forms
def test_values_are_those_of_the_equation(form, shapes):
    value, locations, weights = inputs_of()
    expected = reference.forward(value, torch.tensor(SHAPES), locations, weights)
    actual = form.forward(value, shapes, locations, weights)
    assert (actual - expected).abs().max() < 1e-12


@forms
def test_samples_far_outside_are_zeros(form):
    value, locations, weights = inputs_of()
    far = torch.full_like(locations, 1e6)
    assert form.forward(value, SHAPES, far, weights).abs().max() == 0


@forms
def test_half_precision_values_are_summed_in_float32(form):
    value, locations, weights = inputs_of(torch.float32)
    expected = form.forward(value.half().float(), SHAPES, locations, weights)
    assert torch.equal(form.forward(value.half(), SHAPES, locations, weights), expected)


@pytest.mark.parametrize('numbers', [2, 4])
def test_locations_of_pairs_are_those_of_a_tensor(numbers):
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(2, 6, 2, numbers, generator=generator)
    offsets = torch.randn(2, 6, 3, 2, 2, 2, generator=generator)
    expected = sampling_locations(points, offsets, torch.tensor(SHAPES))
    assert torch.equal(sampling_locations(points, offsets, SHAPES), expected)


class _Attention(nn.Module):
    def forward(self, value, locations, weights):
        return attention.ms_deform_attn(value, SHAPES, locations, weights)


@pytest.mark.parametrize('form', attention.EXPORTED_FORMS)
def test_exported_graph_has_the_form_asked_for(form):
    with attention.exported_as(form):
        graph = torch.jit.trace(_Attention(), inputs_of(), check_trace=False).inlined_graph
    assert ('aten::grid_sampler' in str(graph)) == (form == 'grid_sample')
    assert ('aten::index_select' in str(graph)) == (form == 'gather')
    assert 'mpvit::' not in str(graph)

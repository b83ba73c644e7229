"""The parts of a training step under `torch.compile`: one graph each, with eager's gradients."""

import pytest
import torch
from torch import nn

PARTS = ('extract_feat', 'forward_encoder', 'forward_decoder')


def built(gpu_table, root) -> nn.Module:
    """The tiny detector in training, without what draws random numbers."""
    model, _ = gpu_table.build(root / 'tests' / 'data' / 'tiny.py', None, 'cpu')
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def gradients(model, batch) -> dict[str, torch.Tensor]:
    model.zero_grad()
    losses = model.loss(batch['inputs'], batch['data_samples'])
    model.parse_losses(losses)[0].backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.slow  # tracing takes most of a minute
@pytest.mark.parametrize('amp', [False, True], ids=['fp32', 'bf16'])
def test_backbone_encoder_and_decoder_are_one_graph_each(gpu_table, root, amp):
    """With PyTorch's graphs of forward and backward, which run the fakes of the attention op."""
    model = built(gpu_table, root)
    batch = model.data_preprocessor(gpu_table.make_batch((96, 128), 2, 'cpu'), True)
    with torch.autocast('cpu', torch.bfloat16, enabled=amp):
        expected = gradients(model, batch)
        traced = []

        def backend(graph, inputs):
            traced.append(graph)
            return torch._dynamo.lookup_backend('aot_eager')(graph, inputs)

        for part in PARTS:
            # `fullgraph` makes an error of whatever would end a graph
            compiled = torch.compile(getattr(model, part), fullgraph=True, backend=backend)
            setattr(model, part, compiled)
        actual = gradients(model, batch)
    assert len(traced) == len(PARTS)
    code = [graph.code for graph in traced]
    assert ['ms_deform_attn' in text for text in code] == [False, True, True]
    assert actual.keys() == expected.keys()
    step = 5e-2 if amp else 1e-4
    for name, grad in expected.items():
        error = (actual[name] - grad).norm() / grad.norm().clamp(min=1e-6)
        assert error < step, f'{name}: {error}'

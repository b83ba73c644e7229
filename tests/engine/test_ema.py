"""The moving average of weights that several layers share."""

import torch
from torch import nn

from mpvit.engine.optimizer import SharedWeightsEMA


class Model(nn.Module):
    """Two places for one layer, and a norm with statistics."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.Linear(4, 4)
        self.layers = nn.ModuleList([layer, layer])
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(self.layers[1](self.layers[0](x)))


def test_every_weight_and_statistic_is_averaged_once_a_step():
    torch.manual_seed(0)
    model = Model()
    average = SharedWeightsEMA(model, momentum=0.1)
    expected = None
    for _ in range(5):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(8, 4))
        average.update_parameters(model)
        now = {name: t.clone().double() for name, t in model.state_dict().items()}
        if expected is None:  # the first step copies
            expected = now
        expected = {name: 0.9 * old + 0.1 * now[name] for name, old in expected.items()}
    for name, tensor in average.module.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert average.module.layers[0].weight is average.module.layers[1].weight

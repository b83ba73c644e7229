"""mmcv's feed-forward network with fewer passes over its hidden tokens."""

from mmcv.cnn import Linear
from mmcv.cnn.bricks.transformer import FFN
from torch import Tensor, nn

from mpvit.ops.lean.dropout import add_dropout, relu_dropout
from mpvit.ops.lean.linear import is_plain_float32, linear_relu, use_pointwise_linear


class LeanFFN(FFN):
    """mmcv's `FFN` for float32 on the CPU: dropout goes with what stands beside it, in place.

    Parameters and names are mmcv's. Anywhere else, mmcv's own method runs.
    """

    def forward(self, x: Tensor, identity: Tensor | None = None) -> Tensor:
        """``identity + FFN(x)``.

        Args:
            x: Tokens, shape ``(..., C)``.
            identity: What the result is added to; None for ``x``.
        """
        if not is_plain_float32(x):
            output: Tensor = super().forward(x, identity)
            return output
        (expand, _, inner), contract, outer = self.layers
        if inner.training and inner.p:
            hidden = relu_dropout(expand(x), inner.p)
        else:
            hidden = linear_relu(x, expand)
        output = contract(hidden)
        return add_dropout(x if identity is None else identity, output, outer.p, outer.training)


def use_lean_layers(model: nn.Module) -> None:
    """Give a model the fast linear layers and feed-forward networks, in place.

    Args:
        model: A detector; its parameters and their names stay.
    """
    use_pointwise_linear(model, (nn.Linear, Linear))
    for module in model.modules():
        if type(module) is FFN and _is_simple(module):
            module.__class__ = LeanFFN


def _is_simple(ffn: FFN) -> bool:
    """Two layers with ReLU between, and a residual connection: the usual one."""
    return (
        ffn.num_fcs == 2
        and isinstance(ffn.layers[0][1], nn.ReLU)
        and ffn.add_identity
        and isinstance(ffn.gamma2, nn.Identity)
        and isinstance(ffn.dropout_layer, nn.Identity)
    )

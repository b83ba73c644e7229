"""What makes a finished model fast on the CPU: one call, `use_lean_layers`."""

from collections.abc import Callable
from typing import Any

from mmcv.cnn import ConvModule, Linear
from mmcv.cnn.bricks.transformer import FFN
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mpvit.models.layers import (
    ConvPositionEncoding,
    ConvRelativePositionEncoding,
    TransformerLayer,
)
from mpvit.ops.lean.dropout import add_dropout, relu_dropout
from mpvit.ops.lean.factorized import factorized_attention
from mpvit.ops.lean.linear import (
    PointwiseLinear,
    linear_relu,
    norm_linear,
    norm_mlp_gelu,
    product_dtype,
)
from mpvit.ops.lean.norm import norm_hardswish


class LeanFFN(FFN):
    """mmcv's `FFN` for the CPU: dropout goes with what stands beside it, in place.

    Parameters and names are mmcv's. Anywhere else, mmcv's own method runs.
    """

    def forward(self, x: Tensor, identity: Tensor | None = None) -> Tensor:
        """``identity + FFN(x)`` of tokens ``(..., C)``; ``identity`` is ``x`` where it is None."""
        if product_dtype(x) is None:
            output: Tensor = super().forward(x, identity)
            return output
        (expand, _, inner), contract, outer = self.layers
        if inner.training and inner.p:
            hidden = relu_dropout(expand(x), inner.p)
        else:
            hidden = linear_relu(x, expand)
        output = contract(hidden)
        return add_dropout(x if identity is None else identity, output, outer.p, outer.training)


class LeanTransformerLayer(TransformerLayer):
    """The layer of MPViT for the CPU; parameters and names are the same.

    Norms and GELU go with the products that follow them and are computed again in the backward
    pass; the position encodings are not concatenated.
    """

    def forward(
        self,
        tokens: Tensor,
        size: tuple[int, int],
        cpe: ConvPositionEncoding,
        crpe: ConvRelativePositionEncoding,
    ) -> Tensor:
        """Transform tokens ``(B, H * W, C)`` on a grid of ``size`` ``(H, W)``."""
        attn, mlp = self.attn, self.mlp
        tokens = cpe(tokens, size)
        qkv = norm_linear(tokens, self.norm1, attn.qkv)
        value = qkv.chunk(3, dim=-1)[2]
        attended = factorized_attention(qkv, crpe(value, size), attn.num_heads)
        tokens = tokens + self.drop_path(attn.proj(attended))
        return tokens + self.drop_path(norm_mlp_gelu(tokens, self.norm2, mlp.fc1, mlp.fc2))


class LeanConvModule(ConvModule):
    """mmcv's `ConvModule` for the CPU; the norm's output is not kept. Parameters are the same."""

    def forward(self, x: Tensor, activate: bool = True, norm: bool = True) -> Tensor:
        """Convolve, normalise and activate maps ``(B, C, H, W)``."""
        if not (activate and norm) or product_dtype(x) is None:
            output: Tensor = super().forward(x, activate, norm)
            return output
        return norm_hardswish(self.conv(x), self.norm)


_LEAN: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: PointwiseLinear,
    Linear: PointwiseLinear,
    FFN: LeanFFN,
    ConvModule: LeanConvModule,
    TransformerLayer: LeanTransformerLayer,
}


def use_lean_layers(model: nn.Module) -> None:
    """Give a finished model the layers that are fast on the CPU, in place.

    Layers of exactly the classes that have a lean variant change; parameters and their names stay,
    and calling it again does nothing.
    """
    for module in model.modules():
        lean = _LEAN.get(type(module))  # subclasses have their own forward
        if lean and _FITS.get(lean, _always)(module):
            module.__class__ = lean


def _always(module: nn.Module) -> bool:
    return True


def _is_usual(ffn: Any) -> bool:
    """Two layers with ReLU between, and a residual connection."""
    return (
        ffn.num_fcs == 2
        and isinstance(ffn.layers[0][1], nn.ReLU)
        and ffn.add_identity
        and isinstance(ffn.gamma2, nn.Identity)
        and isinstance(ffn.dropout_layer, nn.Identity)
    )


def _has_hardswish(layer: Any) -> bool:
    """Convolution, batch norm and Hardswish, in this order."""
    return (
        layer.order == ('conv', 'norm', 'act')
        and isinstance(layer.norm, _BatchNorm)
        and layer.with_activation
        and type(layer.activate) is nn.Hardswish
        and not layer.with_explicit_padding
        and layer.efficient_conv_bn_eval_forward is None
    )


_FITS: dict[type[nn.Module], Callable[[Any], bool]] = {
    LeanFFN: _is_usual,
    LeanConvModule: _has_hardswish,
}

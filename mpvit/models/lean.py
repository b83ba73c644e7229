"""What makes a finished model fast on the CPU: one call, `use_lean_layers`."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, Linear
from mmcv.cnn.bricks.transformer import FFN, MultiheadAttention
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mpvit.models.layers import (
    ConvPositionEncoding,
    ConvRelativePositionEncoding,
    TransformerLayer,
)
from mpvit.ops.lean.dropout import add_dropout, dropout_product, relu_dropout
from mpvit.ops.lean.factorized import attention_linear
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

    def forward(
        self, x: Tensor, identity: Tensor | None = None, norm: nn.LayerNorm | None = None
    ) -> Tensor:
        """``identity + FFN(x)`` of tokens ``(..., C)``; ``identity`` is ``x`` where it is None.

        With ``norm``, ``x`` is normalised first, and the result not kept for the backward pass.
        """
        tokens = x if norm is None else norm(x)
        if product_dtype(x) is None:
            output: Tensor = super().forward(tokens, identity)
            return output
        (expand, _, inner), contract, outer = self.layers
        if inner.training and inner.p:
            expanded = expand(x) if norm is None else norm_linear(x, norm, expand)
            hidden = relu_dropout(expanded, inner.p)
        else:
            hidden = linear_relu(tokens, expand)
        identity = tokens if identity is None else identity
        return add_dropout(identity, contract(hidden), outer.p, outer.training)


class LeanAttention(nn.MultiheadAttention):
    """Attention between all pairs of queries on the CPU, as mmcv's `MultiheadAttention` uses it.

    While training, of the weights, the mask of their dropout and the product of both only the
    weights are kept. Parameters and names are PyTorch's. Anywhere else, PyTorch's method runs.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend among queries ``(N, B, C)``; arguments as PyTorch's.

        Returns:
            Tensor of shape ``(N, B, C)``, and None where PyTorch has the mean of the weights.
        """
        if (
            not (self.training and self.dropout)
            or product_dtype(query) is None
            or key_padding_mask is not None
            or is_causal
        ):
            output: tuple[Tensor, Tensor | None] = super().forward(
                query,
                key,
                value,
                key_padding_mask,
                need_weights,
                attn_mask,
                average_attn_weights,
                is_causal,
            )
            return output
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        # (N, B, C) -> (B, heads, N, C / heads)
        q, k, v = (
            F.linear(tokens, weight, bias).unflatten(-1, (self.num_heads, -1)).permute(1, 2, 0, 3)
            for tokens, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        logits = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)
        if attn_mask is not None:  # one for all heads, or one for each
            mask = attn_mask.view(-1, *attn_mask.shape[-2:])
            mask = mask.expand(logits.shape[:2].numel(), -1, -1).reshape(logits.shape)
            is_bool = mask.dtype == torch.bool
            logits = logits.masked_fill(mask, -torch.inf) if is_bool else logits + mask
        attended = dropout_product(logits.softmax(-1), v, self.dropout)
        return self.out_proj(attended.permute(2, 0, 1, 3).flatten(2)), None


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
        attended = attention_linear(qkv, crpe(value, size), attn.num_heads, attn.proj)
        tokens = tokens + self.drop_path(attended)
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
        # mmcv's takes the first of what PyTorch's returns
        if type(module) is MultiheadAttention and _is_plain(module.attn):
            module.attn.__class__ = LeanAttention


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


def _is_plain(attn: Any) -> bool:
    """PyTorch's attention with biases, the same channels everywhere and no further keys."""
    return (
        type(attn) is nn.MultiheadAttention
        and attn.in_proj_weight is not None
        and attn.in_proj_bias is not None
        and attn.bias_k is None
        and not attn.add_zero_attn
        and not attn.batch_first
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

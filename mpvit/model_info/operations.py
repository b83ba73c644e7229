"""Operations of a model, counted from the shapes of its tensors: nothing is computed.

torch's `FlopCounterMode` runs the model on the meta device and knows matrix products and
convolutions. The formulas of everything else are added here; an operator without one is reported,
not taken for free. docs/model_info.md says what counts as what.
"""

import copy
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, flop_registry

import mpvit.ops.msda.op  # noqa: F401  (registers the operator)

Shape = Sequence[int]
_aten = torch.ops.aten

# One operation for each element of the result, whatever it takes to compute.
_ELEMENTWISE = """
    abs add addcdiv addcmul bitwise_and bitwise_not bitwise_or clamp clamp_max clamp_min cos div elu
    eq erf exp floor floor_divide ge gelu gt hardsigmoid hardswish hardtanh le leaky_relu log
    logical_and logical_not logical_or lt maximum minimum mul ne neg pow reciprocal relu remainder
    rsqrt rsub sigmoid silu sin sqrt sub tanh where
"""
# Memory is only read, written or allocated; with what ends in an underscore, in place.
_MOVES = """
    _to_copy _unsafe_view arange cat clone constant_pad_nd copy empty empty_like fill flip full
    full_like gather im2col index index_select linspace masked_fill new_empty new_full new_ones
    new_zeros ones_like repeat roll scatter sort stack topk zero zeros_like
"""


class Operations(NamedTuple):
    """Operations for one image.

    Attributes:
        multiply_adds: Of products, convolutions and bilinear samples; papers call them FLOPs.
        flops: All floating-point operations, two for a multiply-add.
    """

    multiply_adds: int
    flops: int


@dataclass(frozen=True)
class Count:
    """What was counted.

    Attributes:
        parts: By dotted name of the module during whose call they happened; '' is the model.
        by_operator: Floating-point operations by name of the operator.
        unknown: How often operators without a formula were called, by name; not counted.
        peak: Most bytes that its tensors take at a time, without weights and input.
    """

    parts: Mapping[str, Operations]
    by_operator: Mapping[str, int]
    unknown: Mapping[str, int]
    peak: int

    @property
    def total(self) -> Operations:
        """Of the model."""
        return self.parts['']


def count_operations(model: nn.Module, run: Callable[[nn.Module], object]) -> Count:
    """Count the operations of a model in eval mode, which stays as it is.

    ``run`` is to call a copy of it, whose tensors are on the meta device, with inputs there.
    """
    copied = copy.deepcopy(model).to('meta').eval()
    copied.requires_grad_(False)  # the counter expects a graph behind whatever requires one
    counter = FlopCounterMode(display=False, custom_mapping=_FORMULAS)
    shapes = _OnShapes(counter.flop_registry)
    with torch.no_grad(), shapes, counter:
        run(copied)
    counts = counter.get_flop_counts()
    everything = counts.pop('Global', {})
    prefix = f'{type(copied).__name__}.'
    parts = {name.removeprefix(prefix): found for name, found in counts.items() if prefix in name}
    return Count(
        parts={name: _operations(found) for name, found in {'': everything, **parts}.items()},
        by_operator={_name(packet): n for packet, n in everything.items()},
        unknown=dict(shapes.unknown),
        peak=shapes.peak,
    )


def _operations(by_operator: Mapping[Any, int]) -> Operations:
    products = sum(count for operator, count in by_operator.items() if operator in _PRODUCTS)
    return Operations(products // 2, sum(by_operator.values()))


def _name(packet: Any) -> str:
    return str(packet).removeprefix('aten.')


class _OnShapes(TorchDispatchMode):
    """Runs on the meta device what reads sizes out of tensors of integers, as mmdet does.

    Such a tensor stays on the CPU when it is sent to the meta device, and follows there for a
    single operation if that has other tensors there. Calls of operators without a formula are
    noted in ``unknown``.
    """

    def __init__(self, formulas: Mapping[Any, object]) -> None:
        super().__init__()
        self.known = {*formulas, *_FREE}
        self.unknown: Counter[str] = Counter()
        self.live = self.peak = 0
        self._storages: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if func is _aten._to_copy.default and _is_size(tensors[0], kwargs):
            return tensors[0]
        if any(tensor.is_meta for tensor in tensors):
            args, kwargs = tree_map(_to_meta, (args, kwargs))
            if not (func.is_view or func._overloadpacket in self.known):
                self.unknown[_name(func._overloadpacket)] += 1
        result = func(*args, **kwargs)
        if not func.is_view:  # of a weight, for instance
            for leaf in tree_leaves(result):
                if isinstance(leaf, Tensor) and leaf.is_meta:
                    self._note(leaf.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._storages:
            self._storages.add(storage)
            weakref.finalize(storage, self._free, storage.nbytes())
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)

    def _free(self, size: int) -> None:
        self.live -= size


def _is_size(tensor: Tensor, kwargs: Mapping[str, Any]) -> bool:
    sent = torch.device(kwargs.get('device') or 'cpu').type == 'meta'
    return sent and tensor.device.type == 'cpu' and not tensor.is_floating_point()


def _to_meta(value: object) -> object:
    return value.to('meta') if isinstance(value, Tensor) and not value.is_meta else value


def _each(elements: str, operations: int) -> Callable[..., int]:
    """A number of operations for each element of the ``'input'`` or of the ``'output'``."""

    def formula(input_shape: Any, *args: Any, out_shape: Any, **kwargs: Any) -> int:
        return operations * prod(input_shape if elements == 'input' else out_shape)

    return formula


def _pooling(
    input_shape: Shape, kernel: Sequence[int], *args: Any, out_shape: Any, **kwargs: Any
) -> int:
    values = out_shape[0] if isinstance(out_shape[0], Sequence) else out_shape  # without indices
    return prod(values) * prod(kernel)


def _deformable_attention(
    value_shape: Shape, shapes_shape: Shape, locations_shape: Shape, *args: Any, **kwargs: Any
) -> int:
    # each sample is a weighted sum of four corners and is added with an attention weight
    batch, queries, heads, levels, points, _ = locations_shape
    return 2 * (4 + 1) * batch * queries * heads * levels * points * value_shape[3]


def _pointwise_convolution(
    input_shape: Shape, weight_shape: Shape, *args: Any, out_shape: Shape, **kwargs: Any
) -> int:
    return conv_flop_count(list(input_shape), list(weight_shape), list(out_shape))


def _packets(names: str) -> list[Any]:
    """Operators of torch by name, and those that work in place."""
    both = [name for plain in names.split() for name in (plain, f'{plain}_')]
    return [getattr(_aten, name) for name in both if hasattr(_aten, name)]


_SAMPLES: dict[Any, Callable[..., int]] = {
    # a weighted sum of four corners
    **dict.fromkeys((_aten.upsample_bilinear2d, _aten.grid_sampler_2d), _each('output', 2 * 4)),
    torch.ops.mpvit.ms_deform_attn: _deformable_attention,
}
if hasattr(torch.ops.mkldnn, '_convolution_pointwise'):  # of detectors prepared for the CPU
    _SAMPLES[torch.ops.mkldnn._convolution_pointwise] = _pointwise_convolution
_PRODUCTS = {*flop_registry, *_SAMPLES}
_FREE = frozenset(_packets(_MOVES))
_FORMULAS: dict[Any, Callable[..., int]] = {
    **dict.fromkeys(_packets(_ELEMENTWISE), _each('output', 1)),
    **dict.fromkeys(_packets('sum mean cumsum amax amin argmax max prod'), _each('input', 1)),
    # largest, difference, exponential, sum, quotient
    _aten._softmax: _each('input', 5),
    # mean, difference, square, sum of squares, product with the deviation, weight and bias
    **dict.fromkeys(_packets('native_layer_norm native_group_norm'), _each('input', 7)),
    # its statistics are fixed: a factor and a summand
    **dict.fromkeys(
        _packets('native_batch_norm _native_batch_norm_legit_no_training'), _each('input', 2)
    ),
    **dict.fromkeys((_aten.max_pool2d_with_indices, _aten.avg_pool2d), _pooling),
    **_SAMPLES,
}

"""Arithmetic on the channels of an attention head as one LLVM vector, for Numba kernels.

Numba leaves a loop over channels to LLVM's vectoriser, which guards it with checks for overlapping
memory and for the number of channels; in a loop this short they cost as much as the arithmetic.
Here the vector has exactly the length of the head, whatever it is, and sums stay in registers.
Memory holds float32, or bfloat16 as int16.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from mpvit.ops.threads import FASTMATH

_FLOAT = ir.FloatType()


def _data(context: Any, builder: Any, signature: Any, arguments: Any, *places: int) -> list[Any]:
    """Pointers to the elements of the arrays among the arguments."""
    return [
        context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in places
    ]


def _load(builder: Any, data: Any, start: Any, channels: int) -> Any:
    """A float32 vector from unaligned float32 or bfloat16 memory."""
    pointer = builder.gep(data, [start])
    element = pointer.type.pointee
    is_bfloat16 = isinstance(element, ir.IntType)
    raw = builder.bitcast(pointer, ir.VectorType(element, channels).as_pointer())
    vector = builder.load(raw, align=2 if is_bfloat16 else 4)
    if is_bfloat16:  # the upper half of a float32
        wide = ir.VectorType(ir.IntType(32), channels)
        upper = builder.shl(builder.zext(vector, wide), ir.Constant(wide, [16] * channels))
        vector = builder.bitcast(upper, ir.VectorType(_FLOAT, channels))
    return vector


def _store(builder: Any, vector: Any, data: Any, start: Any) -> None:
    pointer = builder.bitcast(builder.gep(data, [start]), vector.type.as_pointer())
    builder.store(vector, pointer, align=4)


def _scaled(builder: Any, scalar: Any, vector: Any) -> Any:
    undefined = ir.Constant(vector.type, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.type.count), None)
    return builder.fmul(builder.shuffle_vector(first, undefined, zeros), vector, flags=FASTMATH)


def _row(builder: Any, indices: Any, index: Any, base: Any, length: int) -> Any:
    """Element at which a row starts, ``base + indices[index] * length``."""
    row = builder.zext(builder.load(builder.gep(indices, [index])), base.type)
    return builder.add(base, builder.mul(row, ir.Constant(base.type, length)))


def _weighted_sum(
    typing: Any,
    value: Any,
    base: Any,
    indices: Any,
    weights: Any,
    count: Any,
    output: Any,
    start: Any,
    channels: Any,
) -> Any:
    """``output[start:start + channels] = sum_k weights[k] * value[base + indices[k] * channels:]``.

    ``indices`` are int32 and not negative.
    """
    length = channels.literal_value
    signature = types.void(
        value, types.intp, indices, weights, types.intp, output, types.intp, channels
    )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, indices, weights, output = _data(context, builder, signature, arguments, 0, 2, 3, 5)
        base, count, start = (arguments[i] for i in (1, 4, 6))
        vector = ir.VectorType(_FLOAT, length)
        total = cgutils.alloca_once(builder, vector)  # becomes registers
        builder.store(ir.Constant(vector, None), total)
        with cgutils.for_range(builder, count) as loop:
            row = _row(builder, indices, loop.index, base, length)
            weight = builder.load(builder.gep(weights, [loop.index]))
            product = _scaled(builder, weight, _load(builder, value, row, length))
            builder.store(builder.fadd(builder.load(total), product, flags=FASTMATH), total)
        _store(builder, builder.load(total), output, start)
        return context.get_dummy_value()

    return signature, generate


def _dots_and_sums(
    typing: Any,
    grad: Any,
    start: Any,
    value: Any,
    target: Any,
    base: Any,
    indices: Any,
    weights: Any,
    count: Any,
    dots: Any,
    channels: Any,
) -> Any:
    """Both gradients of `weighted_sum`, for the vector ``grad[start:start + channels]``.

    ``dots[k]`` becomes its dot product with row ``k`` of ``value``, and ``weights[k]`` times the
    vector is added to row ``k`` of ``target``.
    """
    length = channels.literal_value
    integer = types.intp
    signature = types.void(
        grad, integer, value, target, integer, indices, weights, integer, dots, channels
    )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        grad, value, target, indices, weights, dots = _data(
            context, builder, signature, arguments, 0, 2, 3, 5, 6, 8
        )
        start, base, count = (arguments[i] for i in (1, 4, 7))
        vector = ir.VectorType(_FLOAT, length)
        reduce = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(_FLOAT, [_FLOAT, vector]),
            f'llvm.vector.reduce.fadd.v{length}f32',
        )
        gradient = _load(builder, grad, start, length)
        with cgutils.for_range(builder, count) as loop:
            row = _row(builder, indices, loop.index, base, length)
            product = builder.fmul(gradient, _load(builder, value, row, length), flags=FASTMATH)
            dot = builder.call(reduce, [ir.Constant(_FLOAT, -0.0), product], fastmath=FASTMATH)
            builder.store(dot, builder.gep(dots, [loop.index]))
            weight = builder.load(builder.gep(weights, [loop.index]))
            before = _load(builder, target, row, length)
            after = builder.fadd(before, _scaled(builder, weight, gradient), flags=FASTMATH)
            _store(builder, after, target, row)
        return context.get_dummy_value()

    return signature, generate


# What a kernel calls; Numba hands in the first argument, and the last must be a constant.
weighted_sum: Any = intrinsic(prefer_literal=True)(_weighted_sum)
dots_and_sums: Any = intrinsic(prefer_literal=True)(_dots_and_sums)

"""Arithmetic on the channels of an attention head as one LLVM vector, for Numba kernels.

Numba leaves a loop over channels to LLVM's vectoriser, which guards it with checks for overlapping
memory and for the number of channels; in a loop this short they cost as much as the arithmetic.
Here the vector has exactly the length of the head, whatever it is, and sums stay in registers.
Memory is that of `mpvit.ops.elements`; arithmetic is float32.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from mpvit.ops.elements import narrow, widen
from mpvit.ops.threads import FASTMATH

_FLOAT = ir.FloatType()


def _data(context: Any, builder: Any, signature: Any, arguments: Any, *places: int) -> list[Any]:
    """Pointers to the elements of the arrays among the arguments."""
    return [
        context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in places
    ]


def _read(builder: Any, data: Any, start: Any, channels: int) -> Any:
    """A vector as it lies in memory, unaligned."""
    pointer = builder.gep(data, [start])
    vector = ir.VectorType(pointer.type.pointee, channels)
    return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=_bytes(vector))


def _write(builder: Any, vector: Any, data: Any, start: Any) -> None:
    pointer = builder.bitcast(builder.gep(data, [start]), vector.type.as_pointer())
    builder.store(vector, pointer, align=_bytes(vector.type))


def _bytes(vector: Any) -> int:
    return 4 if vector.element == _FLOAT else 2


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

    ``indices`` are int32 and not negative; ``count`` is even.
    """
    length = channels.literal_value
    signature = types.void(
        value, types.intp, indices, weights, types.intp, output, types.intp, channels
    )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, indices, weights, target = _data(context, builder, signature, arguments, 0, 2, 3, 5)
        base, count, start = (arguments[i] for i in (1, 4, 6))
        vector = ir.VectorType(_FLOAT, length)
        # registers in the end, and two of them, so that an addition need not wait for the last one
        totals = [cgutils.alloca_once(builder, vector) for _ in range(2)]
        for total in totals:
            builder.store(ir.Constant(vector, None), total)
        half = builder.udiv(count, ir.Constant(count.type, 2))
        with cgutils.for_range(builder, half) as loop:
            for total, first in zip(
                totals, (loop.index, builder.add(loop.index, half)), strict=True
            ):
                row = _row(builder, indices, first, base, length)
                weight = builder.load(builder.gep(weights, [first]))
                read = widen(builder, _read(builder, rows, row, length), value.dtype)
                product = _scaled(builder, weight, read)
                builder.store(builder.fadd(builder.load(total), product, flags=FASTMATH), total)
        sum_ = builder.fadd(*map(builder.load, totals), flags=FASTMATH)
        _write(builder, narrow(builder, sum_, output.dtype), target, start)
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
    vector is added to row ``k`` of ``target``, which is float32.
    """
    length = channels.literal_value
    integer = types.intp
    signature = types.void(
        grad, integer, value, target, integer, indices, weights, integer, dots, channels
    )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        grads, rows, sums, indices, weights, dots = _data(
            context, builder, signature, arguments, 0, 2, 3, 5, 6, 8
        )
        start, base, count = (arguments[i] for i in (1, 4, 7))
        vector = ir.VectorType(_FLOAT, length)
        reduce = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(_FLOAT, [_FLOAT, vector]),
            f'llvm.vector.reduce.fadd.v{length}f32',
        )
        gradient = widen(builder, _read(builder, grads, start, length), grad.dtype)
        with cgutils.for_range(builder, count) as loop:
            row = _row(builder, indices, loop.index, base, length)
            read = widen(builder, _read(builder, rows, row, length), value.dtype)
            product = builder.fmul(gradient, read, flags=FASTMATH)
            dot = builder.call(reduce, [ir.Constant(_FLOAT, -0.0), product], fastmath=FASTMATH)
            builder.store(dot, builder.gep(dots, [loop.index]))
            weight = builder.load(builder.gep(weights, [loop.index]))
            before = _read(builder, sums, row, length)
            after = builder.fadd(before, _scaled(builder, weight, gradient), flags=FASTMATH)
            _write(builder, after, sums, row)
        return context.get_dummy_value()

    return signature, generate


def _copy(typing: Any, source: Any, start: Any, target: Any, at: Any, channels: Any) -> Any:
    """``target[at:at + channels] = source[start:start + channels]``."""
    signature = types.void(source, types.intp, target, types.intp, channels)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, copies = _data(context, builder, signature, arguments, 0, 2)
        vector = _read(builder, rows, arguments[1], channels.literal_value)
        if source.dtype != target.dtype:
            vector = narrow(builder, widen(builder, vector, source.dtype), target.dtype)
        _write(builder, vector, copies, arguments[3])
        return context.get_dummy_value()

    return signature, generate


# What a kernel calls; Numba hands in the first argument, and the last must be a constant.
weighted_sum: Any = intrinsic(prefer_literal=True)(_weighted_sum)
dots_and_sums: Any = intrinsic(prefer_literal=True)(_dots_and_sums)
copy: Any = intrinsic(prefer_literal=True)(_copy)

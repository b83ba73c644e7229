"""Numbers of 16 or 32 bits in the memory of Numba kernels, which compute in float32.

Numba has no bfloat16 and no arithmetic of float16 on the CPU. `flat` hands a tensor to a kernel,
where `load` and `store` convert one number, and `widen` and `narrow` vectors of LLVM. Narrowing
rounds to the nearest, ties to even, and NaN stays NaN, as in torch.
"""

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

#: What `flat` takes.
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def flat(tensor: Tensor) -> Any:
    """The memory of a contiguous tensor of `DTYPES` as an array of one dimension.

    Numba gets bfloat16 as int16 and float16 as uint16: so it can tell them apart.
    """
    row = tensor.detach().view(-1)
    if row.dtype == torch.float32:
        return row.numpy()
    bits = row.view(torch.int16).numpy()
    return bits if row.dtype == torch.bfloat16 else bits.view(np.uint16)


def widen(builder: Any, bits: Any, kind: Any) -> Any:
    """Float32 from what was read from an array of the Numba type ``kind``; also vectors."""
    if kind == types.float32:
        return bits
    if kind == types.uint16:
        return builder.fpext(builder.bitcast(bits, _like(bits, ir.HalfType())), _float(bits))
    wide = _like(bits, ir.IntType(32))  # bfloat16 is the upper half of a float32
    upper = builder.shl(builder.zext(bits, wide), _constant(wide, 16))
    return builder.bitcast(upper, _float(bits))


def narrow(builder: Any, value: Any, kind: Any) -> Any:
    """The inverse of `widen`."""
    if kind == types.float32:
        return value
    short = _like(value, ir.IntType(16))
    if kind == types.uint16:
        return builder.bitcast(builder.fptrunc(value, _like(value, ir.HalfType())), short)
    wide = _like(value, ir.IntType(32))
    bits = builder.bitcast(value, wide)
    odd = builder.and_(builder.lshr(bits, _constant(wide, 16)), _constant(wide, 1))
    rounded = builder.add(builder.add(bits, _constant(wide, 0x7FFF)), odd)
    upper = builder.trunc(builder.lshr(rounded, _constant(wide, 16)), short)
    is_nan = builder.fcmp_unordered('uno', value, value)
    return builder.select(is_nan, _constant(short, 0x7FC0), upper)


def _like(value: Any, element: Any) -> Any:
    """``element``, or a vector of them if ``value`` is a vector."""
    is_vector = isinstance(value.type, ir.VectorType)
    return ir.VectorType(element, value.type.count) if is_vector else element


def _float(value: Any) -> Any:
    return _like(value, ir.FloatType())


def _constant(kind: Any, number: int) -> Any:
    is_vector = isinstance(kind, ir.VectorType)
    return ir.Constant(kind, [number] * kind.count if is_vector else number)


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [index])


def _load(typing: Any, array: Any, index: Any) -> Any:
    """``float32(array[index])`` for an index within the array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, array, *arguments)
        return widen(builder, builder.load(place), array.dtype)

    return types.float32(array, types.intp), generate


def _store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """``array[index] = value`` for an index within the array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, array, *arguments[:2])
        builder.store(narrow(builder, arguments[2], array.dtype), place)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.float32), generate


# what a kernel calls; Numba hands in the first argument
load: Any = intrinsic(_load)
store: Any = intrinsic(_store)

"""Multi-scale deformable attention on any device: one operator, several backends.

A backend is a module of this package with three plain functions; ``inputs`` are the four of
`ms_deform_attn`:

- ``forward(*inputs)`` returns the output, which is brought to the dtype of the values here;
- ``backward(grad_output, *inputs)`` returns the gradients of value, locations and weights, each
  brought to the dtype of its input here;
- ``unavailable(device, dtype)`` says in a few words why the backend cannot serve values of this
  dtype there, or returns ``None`` if it can.

A backend that computes sampling locations and the softmax itself also has ``fused_forward`` and
``fused_backward`` (`mpvit.ops.msda.fused`), which modules on a GPU call.

The forward and the backward pass choose for themselves; nothing but the inputs is kept between
them. The environment variable ``MPVIT_MSDA`` forces a backend.

Precision: sampling locations stay as they come, float32 as a rule, whatever the dtype of the
values: rounded to bfloat16 a location would be off by up to 0.7 pixels on a level 167 wide.
Sums are accumulated in float32. Autocast does not touch the operator: it takes its inputs as they
come, so under autocast the values have the low precision of the projection that made them.
"""

import contextlib
import functools
import importlib
import os
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import ModuleType

import torch
from torch import Tensor

from mpvit.errors import UserError
from mpvit.ops.msda import selection as choice
from mpvit.ops.msda.reference import Shapes

VARIABLE = 'MPVIT_MSDA'
Run = Callable[[ModuleType], Callable[[], object]]
BACKENDS = ('reference', 'deterministic', 'cpu', 'triton', 'cuda')
#: What an exported graph may be made of: modules like a backend's, with ``forward`` alone.
EXPORTED_FORMS = ('grid_sample', 'gather')
_KEPT_SIZES = 1024
_level_sizes: dict[tuple[tuple[tuple[int, int], ...], torch.device], Tensor] = {}
_exported_form = ContextVar('exported_form', default='grid_sample')
_AUTOMATIC = {'cpu': ('cpu',), 'cuda': ('cuda', 'triton')}  # by device type, best first
# Older torch cannot tell; there torch.jit.is_tracing and is_in_onnx_export must do.
_is_exporting = getattr(torch.compiler, 'is_exporting', torch.onnx.is_in_onnx_export)


def ms_deform_attn(
    value: Tensor, spatial_shapes: Shapes, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Weighted sum of bilinear samples over levels and points, differentiable, on any device.

    Args:
        value: Values of all levels in a row, shape ``(B, sum(H_l * W_l), heads, C)``.
        spatial_shapes: ``(H_l, W_l)`` of every level, integers of shape ``(levels, 2)``. On a GPU
            they are read there, without waiting; they must then fit ``value``. Or pairs of numbers
            (`level_sizes`), which an exported graph leaves open.
        sampling_locations: ``(x, y)`` in [0, 1] of each level (outside is allowed and samples
            zeros), shape ``(B, queries, heads, levels, points, 2)``.
        attention_weights: Shape ``(B, queries, heads, levels, points)``.

    Returns:
        Tensor of shape ``(B, queries, heads * C)`` and of the dtype of ``value``.

    Raises:
        ValueError: The shapes do not fit each other.
        UserError: ``MPVIT_MSDA`` names no backend, or one that cannot serve this call.
    """
    if exporting():
        form = _load(_exported_form.get())
        output = form.forward(value, spatial_shapes, sampling_locations, attention_weights)
        return output.to(value.dtype)
    spatial_shapes = level_sizes(spatial_shapes, value.device)
    check(value, spatial_shapes, sampling_locations, attention_weights)
    return _forward_op(value, spatial_shapes, sampling_locations, attention_weights)


def exporting() -> bool:
    """Whether a graph is being recorded for another runtime."""
    return _is_exporting() or torch.onnx.is_in_onnx_export() or torch.jit.is_tracing()


def level_sizes(shapes: Shapes, device: torch.device) -> Tensor:
    """Sizes of the levels as a tensor ``(levels, 2)``, made once for each device.

    Copying numbers to a GPU waits for it, and cannot be part of a CUDA graph.
    """
    if isinstance(shapes, Tensor):
        return shapes
    if torch.compiler.is_compiling():
        return torch.tensor(shapes, device=device)
    key = (tuple((int(h), int(w)) for h, w in shapes), device)
    if key not in _level_sizes:
        with torch.inference_mode(False):  # training may take it from here
            sizes = torch.tensor(key[0], device=device)
        if type(sizes) is not Tensor:  # of a mode that only looks at shapes
            return sizes
        if len(_level_sizes) >= _KEPT_SIZES:
            _level_sizes.clear()
        _level_sizes[key] = sizes
    return _level_sizes[key]


@contextlib.contextmanager
def exported_as(form: str) -> Iterator[None]:
    """While it lasts, exported graphs contain attention in a form of `EXPORTED_FORMS`."""
    token = _exported_form.set(form)
    try:
        yield
    finally:
        _exported_form.reset(token)


def forward(
    value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """`ms_deform_attn` by the backend of choice, without autograd."""
    check_positions(value, spatial_shapes)
    inputs = (value, spatial_shapes, sampling_locations, attention_weights)
    return backend('forward', *inputs).forward(*inputs).to(value.dtype).contiguous()


def backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, locations and weights by the backend of choice."""
    inputs = (grad_output, value, spatial_shapes, sampling_locations, attention_weights)
    grads = backend('backward', *inputs).backward(*inputs)
    like = (value, sampling_locations, attention_weights)
    of_value, of_locations, of_weights = (
        grad.to(tensor.dtype).contiguous() for grad, tensor in zip(grads, like, strict=True)
    )
    return of_value, of_locations, of_weights


_forward_op = torch.library.custom_op('mpvit::ms_deform_attn', forward, mutates_args=())
_backward_op = torch.library.custom_op('mpvit::ms_deform_attn_backward', backward, mutates_args=())


@_forward_op.register_fake
def _(*inputs: Tensor) -> Tensor:
    value, _, locations, _ = inputs
    batch, _, heads, channels = value.shape
    return value.new_empty(batch, locations.shape[1], heads * channels)


@_backward_op.register_fake
def _(*inputs: Tensor) -> tuple[Tensor, ...]:
    _, value, _, locations, weights = inputs
    return tuple(t.new_empty(t.shape) for t in (value, locations, weights))


def _keep_inputs(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(
    ctx: torch.autograd.function.FunctionCtx, grad_output: Tensor
) -> tuple[Tensor | None, ...]:
    inputs = ctx.saved_tensors  # type: ignore[attr-defined]
    grad_value, grad_locations, grad_weights = _backward_op(grad_output, *inputs)
    return grad_value, None, grad_locations, grad_weights


_forward_op.register_autograd(_differentiate, setup_context=_keep_inputs)


def backend(direction: str, *inputs: Tensor, run: Run | None = None) -> ModuleType:
    """The module that serves a call.

    Args:
        direction: What is called, such as ``'forward'`` or ``'backward'``.
        *inputs: Arguments of that function of the backend, the last four those of the operator.
        run: Makes the call to be timed, if it is another than that function on these arguments.

    Raises:
        UserError: ``MPVIT_MSDA`` names no backend, or one that cannot serve this call.
    """
    value, _, locations, _ = inputs[-4:]
    forced = os.environ.get(VARIABLE)
    if forced:
        return _forced(forced, value.device, value.dtype)
    if value.device.type == 'cuda' and torch.are_deterministic_algorithms_enabled():
        return _load('deterministic')  # what is measured may turn out another way in the next run
    usable = _usable(value.device, value.dtype)
    if not usable or not locations.numel():
        return _load('reference')
    if value.device.type != 'cuda' or (usable[0] == 'cuda' and _load('cuda').is_mmcvs()):
        return _load(usable[0])  # mmcv's complete extension is always preferred
    run = run or (lambda module: functools.partial(getattr(module, direction), *inputs))
    return _measured(usable, direction, value, locations, run)


def _measured(
    usable: tuple[str, ...], direction: str, value: Tensor, locations: Tensor, run: Run
) -> ModuleType:
    """The fastest of the usable backends on a GPU."""
    batch, queries, heads, levels, points = locations.shape[:5]
    kind = choice.Kind(
        direction=direction,
        values=str(value.dtype).removeprefix('torch.'),
        locations=str(locations.dtype).removeprefix('torch.'),
        channels=value.shape[3],
        heads=heads,
        levels=levels,
        points=points,
        rows=(batch * queries * heads).bit_length(),
        sums=os.environ.get(choice.ATOMICS, 'float32'),
    )
    calls = {name: run(_load(name)) for name in usable}
    with torch.no_grad(), torch.cuda.device(value.device):
        name = choice.fastest(kind, calls, value.device)
    return _load(name or 'reference')


def _forced(name: str, device: torch.device, dtype: torch.dtype) -> ModuleType:
    if name not in BACKENDS:
        raise UserError(f'{VARIABLE}={name} names no backend; valid are {", ".join(BACKENDS)}')
    reason = unavailable(name, device, dtype)
    if reason:
        kind = str(dtype).removeprefix('torch.')
        raise UserError(
            f'{VARIABLE}={name} cannot serve {kind} values on {device}: {reason}; unset it to '
            'choose automatically'
        )
    return _load(name)


@functools.lru_cache
def _usable(device: torch.device, dtype: torch.dtype) -> tuple[str, ...]:
    """Fast backends for a device and dtype, best first; says once where a GPU has none."""
    names = _AUTOMATIC.get(device.type, ())
    reasons = {name: unavailable(name, device, dtype) for name in names}
    usable = tuple(name for name in names if reasons[name] is None)
    if reasons and not usable and dtype != torch.float64:
        why = '; '.join(f'{name}: {reason}' for name, reason in reasons.items())
        warnings.warn(f'deformable attention runs in slow plain PyTorch ({why})', stacklevel=2)
    return usable


def unavailable(name: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a backend cannot serve values of a dtype on a device, or ``None`` if it can."""
    try:
        return _load(name).unavailable(device, dtype)
    except ImportError as error:
        return f'it cannot be imported ({error})'


def _load(name: str) -> ModuleType:
    """A backend, imported when first needed: they bring compilers with them."""
    return importlib.import_module(f'mpvit.ops.msda.{name}')


def check(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> None:
    """A `ValueError` unless the shapes fit, so that no kernel reads outside of its tensors."""
    levels = shapes.shape[0]
    batch, _, heads, _ = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    if weights.shape != (batch, queries, heads, levels, points) or locations.shape != (
        *weights.shape,
        2,
    ):
        raise ValueError(
            f'locations {tuple(locations.shape)} and weights {tuple(weights.shape)} do not fit '
            f'values {tuple(value.shape)} of {levels} levels; expected (B, queries, heads, levels, '
            'points, 2) and (B, queries, heads, levels, points)'
        )


def check_positions(value: Tensor, shapes: Tensor) -> None:
    """A `ValueError` unless values are as many as positions; of sizes on a GPU nothing is read."""
    if shapes.device.type == 'cpu':
        positions = int(shapes.prod(1).sum())
        if positions != value.shape[1]:
            raise ValueError(
                f'levels {shapes.tolist()} have {positions} positions, but value '
                f'{tuple(value.shape)} has {value.shape[1]}'
            )

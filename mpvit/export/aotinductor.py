"""A package of torch.export and AOTInductor: compiled for the CPU, run by PyTorch alone.

`torch._inductor.aoti_load_package` of Python and ``AOTIModelPackageLoader`` of C++ run it.
Deformable attention goes in as the plain operators of `mpvit.ops.msda.op.EXPORTED_FORMS`, because
the program that loads the package does not know this project's own operator.
"""

import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmdet.models import DeformableDETR

from mpvit.errors import UserError
from mpvit.export.graph import DetectorGraph
from mpvit.models.runtimes import SECTION
from mpvit.ops.msda.op import exported_as

# Height and width of an open size are multiples of the stride of the coarsest level: what is
# rounded up on the way to it gives shapes that Inductor cannot compare (torch 2.13: "Invalid
# ranges [0:-1]").
_STRIDE = 64
_EXAMPLE = (3, 4 * _STRIDE, 6 * _STRIDE)


def check_compiler() -> None:
    """Make sure, before the work begins, that there is a C++ compiler.

    Raises:
        UserError: There is none.
    """
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler as error:
        raise UserError(
            '--format aotinductor needs a C++ compiler, and none is found: install g++ or name '
            'one in the environment variable CXX'
        ) from error


def multiple_of(divisor: int, size: tuple[int, int] | None) -> int:
    """What height and width of a package have to be multiples of.

    Args:
        divisor: The same for the detector in PyTorch.
        size: Height and width, if the package takes images of one size only.
    """
    return divisor if size else math.lcm(divisor, _STRIDE)


def write_package(
    model: DeformableDETR,
    file: Path,
    facts: Mapping[str, Any],
    *,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    attention: str = 'grid_sample',
) -> None:
    """Write the package, unchecked; the arguments are those of `mpvit.export.files.write_onnx`.

    ``facts`` become its metadata, with keys as in an ONNX file. Their ``multiple`` says which
    heights and widths it takes.
    """
    multiple = facts['multiple']
    count, height, width = batch or _EXAMPLE[0], *(size or _rounded(multiple))
    images = torch.zeros(count, 3, height, width, dtype=torch.uint8)
    sizes = torch.tensor([[height, width]] * count)
    open_batch = {} if batch else {0: torch.export.Dim.DYNAMIC}
    open_size = {}
    if size is None:
        open_size = {
            axis: multiple * torch.export.Dim(name, min=1)
            for axis, name in ((2, 'height'), (3, 'width'))
        }
    settings = {
        'aot_inductor.metadata': {f'{SECTION}.{k}': json.dumps(v) for k, v in facts.items()},
        'cpp.dynamic_threads': True,  # as many as the program has that runs it
        'freezing': True,  # weights in the layout that oneDNN wants
    }
    graph = DetectorGraph(model).eval().requires_grad_(False)
    with exported_as(attention), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of torch about itself
        program = torch.export.export(
            graph,
            (images, sizes),
            dynamic_shapes=({**open_batch, **open_size}, open_batch),
            strict=False,
        )
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(file), inductor_configs=settings
        )


def _rounded(multiple: int) -> tuple[int, int]:
    """Height and width of the example, not equal."""
    rows, columns = (-(-side // multiple) for side in _EXAMPLE[1:])
    rows = max(rows, 2)  # 1 would be taken for a constant
    return rows * multiple, max(columns, rows + 1) * multiple

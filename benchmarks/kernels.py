"""What the compiler makes of the Triton kernels of deformable attention; no GPU is needed.

``python -m benchmarks.kernels`` compiles both kernels for GPUs of compute capability 8.0, 9.0 and
10.0 with the compiler that comes with Triton, and prints a table of registers, spills, loads and
atomic additions. ``--all`` adds head widths 16 and 64 and every configuration that the tuner tries.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler import compile as compile_kernel

from mpvit.ops.msda import triton as kernels

CAPABILITIES = (80, 90, 100)
DTYPES = {'fp32': 4, 'fp16': 2, 'bf16': 2}  # and bytes of a number
WIDTHS = (16, 32, 64)
HEADS, LEVELS, POINTS = 8, 4, 4
_KERNELS = {'forward': kernels._forward_kernel, 'backward': kernels._backward_kernel}
_CUOBJDUMP = Path(triton.__file__).parent / 'backends' / 'nvidia' / 'bin' / 'cuobjdump'


@dataclass(frozen=True)
class Case:
    """What a kernel is compiled for.

    Attributes:
        direction: 'forward' or 'backward'.
        dtype: Of the values, a key of `DTYPES`.
        capability: Compute capability of the GPU, times 10.
        channels: Of a head.
        numbers: Of a reference point, 2 or 4, with offsets and logits of the dtype of the values;
            0 for the kernel that takes sampling locations (float32) and attention weights.
        native: Whether gradients of values are summed in the dtype of the values.
    """

    direction: str
    dtype: str
    capability: int
    channels: int = 32
    numbers: int = 2
    native: bool = False

    @property
    def summed(self) -> str:
        """Dtype in which gradients of values are summed."""
        return self.dtype if self.native else 'fp32'

    def candidates(self) -> list[triton.Config]:
        """Configurations that the tuner tries."""
        backward = self.direction == 'backward'
        size = DTYPES[self.summed if backward else self.dtype]
        return kernels.candidates(self.channels, size, backward, divmod(self.capability, 10))


@dataclass(frozen=True)
class Report:
    """What was counted in the PTX and the machine code of a program.

    Attributes:
        registers: Of a thread.
        spilled: Bytes of a thread that do not fit the registers.
        loads: How many loads from global memory there are, by bytes of a thread.
        atomics: How many atomic operations there are, by kind, such as 'relaxed.add.v4.f32'.
        divisions: How many integer divisions there are, by kind, such as 's64'.
        barriers: Waits of all threads of a program for each other.
    """

    registers: int
    spilled: int
    loads: Counter[int]
    atomics: Counter[str]
    divisions: Counter[str]
    barriers: int


def compiled(case: Case, config: triton.Config) -> Report:
    """Compile a kernel, as a launch with aligned tensors would, and count."""
    kernel = _KERNELS[case.direction]
    constants = dict(
        HEADS=HEADS,
        CHANNELS=case.channels,
        LEVELS=LEVELS,
        POINTS=POINTS,
        NUMBERS=case.numbers,
        BLOCK=triton.next_power_of_2(case.channels),
        SLOTS=triton.next_power_of_2(max(case.channels, LEVELS * POINTS)),
        **config.kwargs,
    )
    if not case.numbers:
        constants['reference'] = None
        if case.direction == 'backward':
            constants['output'] = None
    types = dict.fromkeys(('positions', 'queries', 'size_class'), 'i32')
    types |= dict(shapes='*i64', reference='*fp32', grad_value=f'*{case.summed}')
    if not case.numbers:
        types |= dict(places='*fp32', grad_places='*fp32')
    names = kernel.arg_names
    signature = {
        name: 'constexpr' if name in constants else types.get(name, f'*{case.dtype}')
        for name in names
    }
    pointers = [i for i, name in enumerate(names) if signature[name].startswith('*')]
    source = ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(i,): [['tt.divisibility', 16]] for i in pointers},
    )
    result = compile_kernel(
        source,
        target=GPUTarget('cuda', case.capability, 32),
        options=dict(num_warps=config.num_warps),
    )
    return _counted(result.asm['ptx'], result.asm['cubin'])


def _counted(ptx: str, cubin: bytes) -> Report:
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(cubin)
        file.flush()
        command = [str(_CUOBJDUMP), '-res-usage', file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    loads = re.findall(r'ld\.global(?:\.v(\d))?\.b(\d+)', ptx)
    return Report(
        registers=int(re.search(r'REG:(\d+)', usage)[1]),
        spilled=sum(int(size) for size in re.findall(r'(?:STACK|LOCAL):(\d+)', usage)),
        loads=Counter(int(number or 1) * int(bits) // 8 for number, bits in loads),
        atomics=Counter(re.findall(r'(?:atom|red)\.global\.gpu\.([\w.]+)', ptx)),
        divisions=Counter(re.findall(r'(?:div|rem)\.([su]\d+)', ptx)),
        barriers=len(re.findall(r'\b(?:bar|barrier)\.', ptx)),
    )


def cases(everything: bool) -> Iterator[tuple[Case, list[triton.Config]]]:
    """What the table shows, and with which configurations: the first alone, or all."""
    for direction in _KERNELS:
        for capability in CAPABILITIES:
            for dtype in DTYPES if everything else ('fp32', 'bf16'):
                for channels in WIDTHS if everything else (32,):
                    case = Case(direction, dtype, capability, channels)
                    yield case, case.candidates()[: None if everything else 1]
    if not everything:
        case = Case('backward', 'bf16', 90, native=True)
        yield case, case.candidates()[:1]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--all', action='store_true', help='all widths and configurations')
    everything = parser.parse_args().all
    print('| kernel | GPU | values | registers | spilled | loads | atomic additions | barriers |')
    print('|---|---|---|---|---|---|---|---|')
    for case, configs in cases(everything):
        for config in configs:
            report = compiled(case, config)
            kernel = case.direction
            if everything:
                neighbours = ', neighbours' if config.kwargs['NEIGHBOURS'] else ''
                kernel += f', {case.channels} channels, {config.num_warps} warps{neighbours}'
            loads = ', '.join(f'{n} of {size} B' for size, n in sorted(report.loads.items()))
            atomics = ', '.join(f'{n} {kind}' for kind, n in report.atomics.items()) or 'none'
            values = f'{case.dtype}, summed in {case.dtype}' if case.native else case.dtype
            cells = (kernel, f'{case.capability / 10}', values, report.registers, report.spilled)
            print('|', ' | '.join(map(str, (*cells, loads, atomics, report.barriers))), '|')
            sys.stdout.flush()


if __name__ == '__main__':
    main()

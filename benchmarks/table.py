"""All measurements, each in a process of its own, as the table of docs/benchmarks.md.

`python -m benchmarks.table --update docs/benchmarks.md` measures and replaces the table there.
"""

import dataclasses
import importlib
import json
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from benchmarks._timing import Row, arguments, in_process, markdown

SCRIPTS = {  # and what a script needs beside the project itself
    'attention': (),
    'backbone': (),
    'detector': (),
    'training': (),
    'huggingface': ('transformers',),
    'export': ('openvino', 'onnx', 'onnxruntime'),
    'evaluation': (),
}
ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / 'work_dirs' / 'benchmarks.json'
BEGIN, END = '<!-- benchmarks -->', '<!-- /benchmarks -->'


def rows_of(script: str, quick: bool, threads: int | None) -> list[Row]:
    """The rows of one script."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    return importlib.import_module(f'benchmarks.{script}').rows(quick)


def machine(threads: int | None) -> str:
    """What the figures depend on, in one line."""
    import torch

    from mpvit.engine.run_folder import processor

    isa = torch.backends.cpu.get_cpu_capability()
    count = threads or torch.get_num_threads()
    return (
        f'{processor()} ({isa}), {os.cpu_count()} cores, {count} threads; torch {torch.__version__}'
    )


def measure(scripts: list[str], quick: bool, threads: int | None) -> dict[str, list[Row]]:
    """Run scripts one after the other; says on stderr where it is."""
    results = {}
    for script in scripts:
        missing = [name for name in SCRIPTS[script] if find_spec(name) is None]
        if missing:
            needs = ' and '.join(missing)
            results[script] = [Row(script, '', None, note=f"needs {needs}: install '.[bench]'")]
            continue
        start = time.monotonic()
        print(f'{script} ...', end=' ', file=sys.stderr, flush=True)
        try:
            results[script] = in_process(rows_of, script, quick, threads)
        except Exception as error:  # the other scripts still have something to say
            results[script] = [Row(script, '', None, note=f'failed: {error!r}')]
        print(f'{time.monotonic() - start:.0f} s', file=sys.stderr)
        keep(results, threads)
    return results


def keep(results: dict[str, list[Row]], threads: int | None) -> None:
    """Write what there is so far as JSON."""
    RESULTS.parent.mkdir(exist_ok=True)
    rows = {name: [dataclasses.asdict(row) for row in rows] for name, rows in results.items()}
    RESULTS.write_text(json.dumps(dict(machine=machine(threads), rows=rows), indent=1))


def report(results: dict[str, list[Row]], quick: bool, threads: int | None) -> str:
    """The rows of all scripts as markdown, and what they were measured on."""
    lines = [f'Measured on {machine(threads)}. Ratios are medians of pairs (lowest to highest).']
    if quick:
        lines.insert(0, '**Small sizes, to see that it runs: not a measurement.**\n')
    lines.append('\n' + markdown([row for rows in results.values() for row in rows]))
    return '\n'.join(lines)


def update(path: Path, text: str) -> None:
    """Put text between the lines ``<!-- benchmarks -->`` and ``<!-- /benchmarks -->`` of a file.

    Raises:
        SystemExit: The file lacks the markers.
    """
    content = path.read_text()
    if BEGIN not in content or END not in content:
        sys.exit(f'{path} has no lines {BEGIN} and {END}; put them where the table shall stand')
    before, rest = content.split(BEGIN, 1)
    path.write_text(f'{before}{BEGIN}\n{text}\n{END}{rest.split(END, 1)[1]}')


def main() -> None:
    """Measure, print, keep."""
    parser = arguments(__doc__)
    parser.add_argument('scripts', nargs='*', help=f'of {", ".join(SCRIPTS)}; default: all')
    parser.add_argument('--update', type=Path, metavar='FILE', help='write the table into a file')
    args = parser.parse_args()
    unknown = set(args.scripts) - SCRIPTS.keys()
    if unknown:
        parser.error(f'no script {", ".join(sorted(unknown))}; choose from {", ".join(SCRIPTS)}')
    results = measure(args.scripts or list(SCRIPTS), args.quick, args.threads)
    text = report(results, args.quick, args.threads)
    print(text)
    if args.update:
        update(args.update, text)


if __name__ == '__main__':
    main()

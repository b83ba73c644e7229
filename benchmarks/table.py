"""All measurements in one run of at most half an hour: the table of docs/benchmarks.md.

`python -m benchmarks.table` measures and prints; `--write` also replaces the table there, unless
the machine was too noisy.
"""

import argparse
import dataclasses
import importlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks._machine import LIMITS, WORDS, Noise, Watch, facts
from benchmarks._timing import Row, markdown

#: Most seconds that each script gets, on two cores.
SCRIPTS = {
    'attention': 175,
    'detector': 230,
    'training': 560,
    'rivals': 240,
    'export': 375,
    'evaluation': 145,
}
WHOLE = 1800  # seconds; what is left of it goes to starting and to measuring the noise
ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / 'work_dirs' / 'benchmarks.json'
PAGE = ROOT / 'docs' / 'benchmarks.md'


def write_rows(script: str, settings: dict[str, Any], file: Path) -> None:
    """Write each row of a script as it is known, a line of JSON; in a process of its own."""
    module, _, function = script.partition(':')
    os.setsid()  # so that it can be ended together with the processes that it starts
    os.dup2(2, 1)  # what it prints is no part of the table
    with file.open('w', buffering=1) as lines:
        try:
            for row in getattr(importlib.import_module(module), function or 'rows')(**settings):
                lines.write(json.dumps(dataclasses.asdict(row)) + '\n')
        except Exception as error:  # the other scripts still have something to say
            traceback.print_exc()
            row = Row(script, '', None, note=f'failed: {error!r}')
            lines.write(json.dumps(dataclasses.asdict(row)) + '\n')


def measure(script: str, seconds: float, **settings: Any) -> list[Row]:
    """The rows of one script; those that are known when its time is up.

    Args:
        script: A module, whose function ``rows`` is called, or ``module:function``.
        seconds: Its time.
        **settings: Arguments of the function.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'rows'
        process = get_context('spawn').Process(target=write_rows, args=(script, settings, file))
        process.start()
        try:
            process.join(seconds)
            late = process.is_alive()
        finally:
            if process.is_alive():
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.kill()
                process.join()
        lines = file.read_text().splitlines() if file.exists() else []
    rows = [row_from(json.loads(line)) for line in lines]
    if late:
        rows.append(Row(script, '', None, note=f'stopped after {seconds:.0f} s'))
    elif process.exitcode:
        rows.append(Row(script, '', None, note=f'died with status {process.exitcode}'))
    return rows


def row_from(fields: dict[str, Any]) -> Row:
    """A row from what JSON makes of it."""
    spread = fields.pop('spread')
    return Row(**fields, spread=tuple(spread) if spread else None)


def plan(scripts: Iterable[str]) -> str:
    """What is going to run, and how long it may take."""
    parts = [f'{name} {SCRIPTS[name]}' for name in scripts]
    return (
        f'at most {sum(SCRIPTS[name] for name in scripts) / 60:.0f} minutes: {", ".join(parts)} s'
    )


def run(scripts: list[str], quick: bool, threads: int) -> dict[str, Any]:
    """Run scripts one after the other; says on stderr where it is.

    Returns:
        ``machine``, ``noise``, ``quick``, ``seconds`` of each script and its ``rows``.
    """
    print(plan(scripts), file=sys.stderr)
    watch = Watch()
    rows: dict[str, list[Row]] = {}
    seconds: dict[str, float] = {}
    for script in scripts:
        watch.sample()
        start = time.monotonic()
        print(f'{script} ...', end=' ', file=sys.stderr, flush=True)
        rows[script] = measure(f'benchmarks.{script}', SCRIPTS[script], quick=quick)
        seconds[script] = round(time.monotonic() - start, 1)
        print(f'{seconds[script]:.0f} s', file=sys.stderr)
    watch.sample()
    return dict(
        machine=facts(threads), noise=watch.noise(), quick=quick, seconds=seconds, rows=rows
    )


def report(results: dict[str, Any]) -> str:
    """Results as markdown: machine, noise where it is known, table."""
    minutes = sum(results['seconds'].values()) / 60
    lines = [f'- {name}: {value}' for name, value in results['machine'].items()]
    if 'noise' in results:
        lines.append(f'- noise: {results["noise"]}')
    lines.append(f'- time: {minutes:.1f} minutes')
    if results['quick']:
        lines.insert(0, '**Small sizes, to see that it runs: not a measurement.**\n')
    rows = [row for rows in results['rows'].values() for row in rows]
    return '\n'.join(lines) + '\n\n' + markdown(rows)


def save(results: dict[str, Any], file: Path) -> None:
    """Write results as JSON."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(results, indent=1, default=dataclasses.asdict) + '\n')


def publish(
    results: dict[str, Any], page: Path, name: str = 'benchmarks', scripts: Iterable[str] = SCRIPTS
) -> None:
    """Replace the table of a page, and write the figures as JSON beside it.

    Args:
        results: From `run`.
        page: Markdown with the lines ``<!-- name -->`` and ``<!-- /name -->``.
        name: Of the table.
        scripts: All that have to have run.

    Raises:
        SystemExit: The machine was too noisy, the measurement is not whole, or the page lacks the
            lines. Nothing was written.
    """
    if results['quick'] or set(results['rows']) != set(scripts):
        sys.exit(f'{page} stays as it is: only all scripts in full size are written')
    noise: Noise | None = results.get('noise')
    if noise and (reason := noise.refusal()):
        sys.exit(f'{page} stays as it is: {reason}')
    begin, end = f'<!-- {name} -->', f'<!-- /{name} -->'
    content = page.read_text()
    if begin not in content or end not in content:
        sys.exit(f'{page} has no lines {begin} and {end}; put them where the table shall stand')
    before, rest = content.split(begin, 1)
    data = page.with_suffix('.json')
    save(results, data)
    text = f'{report(results)}\n\nThe same as JSON: [{data.name}]({data.name}).'
    page.write_text(f'{before}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}')


def main() -> None:
    """Measure, print, keep."""
    limits = ', '.join(f'{WORDS[name]} {limit:.0%}' for name, limit in LIMITS.items())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'scripts',
        nargs='*',
        choices=[[], *SCRIPTS],
        metavar='SCRIPT',
        help=f'of {", ".join(SCRIPTS)}; default: all',
    )
    parser.add_argument('--quick', action='store_true', help='small sizes: does it run at all?')
    parser.add_argument('--threads', type=int, help='default: as many as there are processors')
    text = f'replace the table of docs/benchmarks.md; refused where {limits}, or more'
    parser.add_argument('--write', action='store_true', help=text.replace('%', '%%'))
    args = parser.parse_args()
    from mpvit.processors import available

    threads = args.threads or available()
    os.environ['OMP_NUM_THREADS'] = str(threads)  # before torch is loaded, here and by the scripts
    results = run(args.scripts or list(SCRIPTS), args.quick, threads)
    save(results, RESULTS)
    print(report(results))
    if args.write:
        publish(results, PAGE)


if __name__ == '__main__':
    main()

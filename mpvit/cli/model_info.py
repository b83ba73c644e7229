"""Count parameters, operations, memory and latency of detectors.

With random weights: needs neither data nor a checkpoint (docs/model_info.md).
"""

import argparse
import json
import sys
from dataclasses import asdict

from mpvit.cli import _arguments as types
from mpvit.files.paths import new_file
from mpvit.files.writing import write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        'configs', type=types.config, nargs='+', metavar='CONFIG', help='config file'
    )
    several = dict(dest='sizes', nargs=2, action='append')
    text = 'image as it enters the backbone; may be given several times (default: 800 1333)'
    types.option(parser, '--size', types.positive, ('HEIGHT', 'WIDTH'), text, **several)
    parser.add_argument('--per-module', action='store_true', help='also a table of the parts')
    text = 'write everything, unrounded, as JSON'
    types.option(parser, '--json', new_file, 'FILE', text, dest='target')
    types.add_device(parser, 'the first GPU, or cpu, for memory and latency')
    types.option(parser, '--runs', types.positive, 'N', 'timed runs for the latency', 5)
    parser.add_argument(
        '--no-latency', dest='latency', action='store_false', help='do not measure latency'
    )
    parser.add_argument(
        '--no-memory', dest='memory', action='store_false', help='do not measure memory'
    )


def run(
    configs: list[str],
    sizes: list[list[int]] | None,
    per_module: bool,
    target: str | None,
    latency: bool,
    runs: int,
    memory: bool,
    device: str | None,
) -> None:
    """Count, measure and print the tables, and write the file."""
    import mpvit.register  # noqa: F401
    from mpvit import model_info

    models = []
    for config in configs:
        print(f'{config} ...', file=sys.stderr)
        pixels = [(height, width) for height, width in sizes or [[800, 1333]]]
        runs = runs if latency else 0
        models.append(
            model_info.model_info(config, pixels, device=device, memory=memory, runs=runs)
        )
    print(model_info.summary_table(models))
    if latency or memory:
        print(f'\nMeasured on {model_info.machine(models[0].device)}.')
    for model in models:
        for found in model.sizes:
            if per_module:
                print('\n{}, {}x{}:'.format(model.name, *found.size))
                print(model_info.part_table(found))
            if found.unknown:
                calls = ', '.join(f'{name} ({n} times)' for name, n in found.unknown.items())
                print(f'\n{model.name}: not counted, for want of a formula: {calls}')
    if target:
        content = [asdict(model) for model in models]
        write(target, json.dumps(content, indent=1) + '\n')

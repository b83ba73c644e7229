"""Parameters, operations, memory and latency of detectors: python tools/model_info.py CONFIG."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from _cli import parse, run


def main() -> None:
    """Parse arguments, count, measure and print."""
    parser = argparse.ArgumentParser(
        description='Numbers of detectors with random weights: parameters, operations, memory and '
        'latency of an image (docs/model_info.md). Needs neither data nor a checkpoint.'
    )
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='config file')
    parser.add_argument(
        '--size',
        dest='sizes',
        type=int,
        nargs=2,
        action='append',
        metavar=('HEIGHT', 'WIDTH'),
        help='pixels of the image as it enters the backbone; may be given several times '
        '(default: 800 1333)',
    )
    parser.add_argument('--per-module', action='store_true', help='also a table of the parts')
    parser.add_argument('--json', metavar='FILE', help='write everything, unrounded, as JSON')
    parser.add_argument(
        '--device', help='where memory and latency are measured (default: the first GPU, or cpu)'
    )
    parser.add_argument(
        '--runs', type=int, default=5, metavar='N', help='timed runs for the latency (default: 5)'
    )
    parser.add_argument('--no-latency', action='store_true', help='do not measure latency')
    parser.add_argument('--no-memory', action='store_true', help='do not measure memory')
    arguments = argparse.Namespace(**parse(parser))
    run(lambda: report(arguments))


def report(arguments: argparse.Namespace) -> None:
    """Print the tables of all detectors and write the file."""
    from mpvit import model_info

    models = []
    for config in arguments.configs:
        print(f'{config} ...', file=sys.stderr)
        models.append(
            model_info.model_info(
                config,
                [tuple(size) for size in arguments.sizes or [(800, 1333)]],
                device=arguments.device,
                memory=not arguments.no_memory,
                runs=0 if arguments.no_latency else arguments.runs,
            )
        )
    print(model_info.summary_table(models))
    if not (arguments.no_latency and arguments.no_memory):
        print(f'\nMeasured on {model_info.machine(models[0].device)}.')
    for model in models:
        for found in model.sizes:
            if arguments.per_module:
                print('\n{}, {}x{}:'.format(model.name, *found.size))
                print(model_info.part_table(found))
            if found.unknown:
                calls = ', '.join(f'{name} ({n} times)' for name, n in found.unknown.items())
                print(f'\n{model.name}: not counted, for want of a formula: {calls}')
    if arguments.json:
        content = [asdict(model) for model in models]
        Path(arguments.json).write_text(json.dumps(content, indent=1) + '\n')


if __name__ == '__main__':
    main()

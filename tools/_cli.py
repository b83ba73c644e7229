"""What the tools share: their common arguments, and how errors are shown.

Nothing heavy is imported here, so that ``--help`` and wrong arguments answer at once.
"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

# started by the command `mpvit` (mpvit_cli.py), which is what a usage should name then
if command := os.environ.pop('MPVIT_COMMAND', None):
    sys.argv[0] = command


def common_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments every tool has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file, or name of one (`mpvit configs`)')
    parser.add_argument(
        '--work-dir', metavar='DIR', help='folder for outputs (default: work_dirs/<config name>)'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='override config entries, such as train_dataloader.batch_size=4',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes were started (default: none, a single process)',
    )
    # torch.distributed.launch passes this; torchrun sets the environment variable instead
    parser.add_argument('--local-rank', '--local_rank', type=int, help=argparse.SUPPRESS)
    return parser


def add_data(parser: argparse.ArgumentParser, *splits: str) -> None:
    """Arguments that name a dataset in place of the config's."""
    group = parser.add_argument_group('data of your own, in COCO format (docs/data.md)')
    group.add_argument('--data', metavar='DIR', help='folder of the dataset')
    for split in splits:
        group.add_argument(
            f'--{split}-ann', metavar='FILE', help=f'annotation file for {split}, if not found'
        )
        group.add_argument(
            f'--{split}-images', metavar='DIR', help=f'folder of the images for {split}'
        )


def parse(
    parser: argparse.ArgumentParser, check: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Parse the command line into keyword arguments and check them, first what the tool checks."""
    arguments = vars(parser.parse_args())
    if check is not None:
        check(arguments)
    local_rank = arguments.pop('local_rank', None)
    if local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(local_rank))
    run(lambda: light('arguments').check_arguments(arguments))
    return arguments


def run(main: Callable[[], object]) -> None:
    """Run a tool: a mistake of the user ends in one line, without a traceback, and status 1."""
    try:
        user_error = light('errors').UserError
        try:
            main()
        except user_error as error:
            if os.environ.get('MPVIT_DEBUG'):
                raise
            rank = os.environ.get('RANK', '0')
            lines = str(error).split('\n')  # one for each mistake
            if error.every_rank and 'RANK' in os.environ:
                sys.exit('\n'.join(f'error (rank {rank}): {line}' for line in lines))
            # every process of a distributed run comes here; one message is enough
            sys.exit('\n'.join(f'error: {line}' for line in lines) if rank == '0' else 1)
    except ModuleNotFoundError as error:
        if os.environ.get('MPVIT_DEBUG'):
            raise
        sys.exit(f'error: {error.name} is not installed; run `make setup` or `pip install -e .`')
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        sys.exit(130)


def light(name: str) -> ModuleType:
    """A module or package of mpvit that imports nothing heavy, without importing mpvit itself.

    ``import mpvit`` registers everything in mmdet, which takes seconds. When that happens later,
    it finds the module in `sys.modules`, so there is one of it, and one `UserError`.
    """
    full_name = f'mpvit.{name}'
    if full_name not in sys.modules:
        package = importlib.util.find_spec('mpvit')
        if package is None:
            raise ModuleNotFoundError('No module named mpvit', name='mpvit')
        place = Path(package.submodule_search_locations[0]).joinpath(*name.split('.'))
        folders = [str(place)] if place.is_dir() else None
        file = place / '__init__.py' if folders else place.with_suffix('.py')
        spec = importlib.util.spec_from_file_location(
            full_name, file, submodule_search_locations=folders
        )
        sys.modules[full_name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[full_name]  # half a module
            raise
    return sys.modules[full_name]


def light_plots() -> None:
    """Load what draws, without torch and mmdet, whose import takes seconds; in this order."""
    for name in ('datasets.check', 'engine.coco_evaluation', 'analysis', 'colours', 'plots'):
        light(name)

"""What the tools share: their common arguments, and how errors are shown.

Nothing heavy is imported here, so that ``--help`` and wrong arguments answer at once.
"""

import argparse
import os
import sys
from collections.abc import Callable


def common_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments every tool has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file')
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


def parse(parser: argparse.ArgumentParser) -> dict[str, object]:
    """Parse the command line into keyword arguments."""
    arguments = vars(parser.parse_args())
    local_rank = arguments.pop('local_rank')
    if local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(local_rank))
    return arguments


def run(main: Callable[[], object]) -> None:
    """Run a tool: a mistake of the user ends in one line, without a traceback, and status 1."""
    try:
        from mpvit.errors import UserError

        try:
            main()
        except UserError as error:
            if os.environ.get('MPVIT_DEBUG'):
                raise
            # every process of a distributed run comes here; one message is enough
            sys.exit(1 if os.environ.get('RANK', '0') != '0' else f'error: {error}')
    except ModuleNotFoundError as error:
        if os.environ.get('MPVIT_DEBUG'):
            raise
        sys.exit(f'error: {error.name} is not installed; run `make setup` or `pip install -e .`')
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        sys.exit(130)

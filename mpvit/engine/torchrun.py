"""torchrun for the tools: what a process says stands alone, without torchrun's own traceback.

Run as ``python -m mpvit.engine.torchrun`` in the place of ``python -m torch.distributed.run``.
"""

import logging
import os
import signal
import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

OWN_STORE = 'TORCH_DISABLE_SHARE_RDZV_TCP_STORE'


def main() -> None:
    """Start the processes; exit with 1 if one of them fails.

    After a restart the processes meet in a store of their own. In torchrun's, which outlives them,
    torch 2.13 would read the addresses of dead processes: gloo's listeners and NCCL's unique id
    (pytorch/pytorch#135712, #167288).

    A process that ends by itself has said why. One that was killed has not, so a line names the
    signal.
    """
    os.environ[OWN_STORE] = '1'
    # its own report on a failed process, which is that of the exception below
    logging.getLogger('torch.distributed.elastic.multiprocessing.api').setLevel(logging.CRITICAL)
    try:
        run(parse_args(None))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            sys.stderr.write(
                f'error: the process of rank {rank} was killed by {name}; if nobody did that, the '
                'machine may be out of memory (dmesg says so)\n'
            )
        sys.exit(1)


if __name__ == '__main__':
    main()

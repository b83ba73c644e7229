"""The processes of one run: starting to talk, and doing something once for all of them."""

import os
import subprocess
from collections.abc import Callable
from typing import Any, TypeVar, cast

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import broadcast_object_list, init_dist, is_distributed, is_main_process
from mmengine.utils.dl_utils import set_multi_processing
from torch import distributed

from mpvit.errors import UserError

Answer = TypeVar('Answer')


def start_processes(launcher: str, env_cfg: dict[str, Any] | Config) -> None:
    """Let the processes of a run talk, if there are several and they do not yet.

    As mmengine's runner does, which finds it done. Without GPUs they talk over gloo.

    Args:
        launcher: How they were started: 'none', 'pytorch', 'slurm' or 'mpi'.
        env_cfg: The config's entry of that name.

    Raises:
        UserError: They were not started in a way that numbers them, or in one that restarts them so
            that they do not find each other.
    """
    _check_restarts()
    if launcher == 'none' or is_distributed():
        return
    if get_device() != 'cpu':
        set_multi_processing(**(env_cfg.get('mp_cfg') or {}), distributed=True)
        init_dist(launcher, **(env_cfg.get('dist_cfg') or {}))
        return
    if launcher == 'slurm':
        _take_rank_from_slurm()
    elif 'RANK' not in os.environ:
        raise UserError(
            f'--launcher {launcher}: on CPUs start the processes with tools/dist_train.sh, '
            'tools/dist_test.sh or torchrun'
        )
    distributed.init_process_group('gloo')


def by_main_process(function: Callable[[], Answer]) -> Answer:
    """What a function gives in the main process, in all of them; every one has to call it.

    Raises:
        UserError: The function does.
    """
    answer: list[Any] = [None, None]
    if is_main_process():
        try:
            answer[0] = function()
        except UserError as error:
            answer[1] = str(error).split('\n')
            broadcast_object_list(answer)
            raise
    broadcast_object_list(answer)
    result, lines = answer
    if lines:
        raise UserError(*lines)
    return cast(Answer, result)


def _check_restarts() -> None:
    """Refuse restarts of torchrun that find the addresses of dead processes.

    They do in the store of torchrun, which keeps what the dead ones wrote. It is a race: whoever
    is faster than the process whose address it needs fails, or waits until the timeout.
    `mpvit.engine.torchrun` does without that store.
    """
    env = os.environ
    restarts = env.get('TORCHELASTIC_MAX_RESTARTS', '0')
    if restarts != '0' and env.get('TORCHELASTIC_USE_AGENT_STORE') == 'True':
        raise UserError(
            f'torchrun --max-restarts={restarts}: a restarted process would connect to dead ones; '
            f'start with MAX_RESTARTS={restarts} mpvit dist_train, or set '
            'TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 and --rdzv-backend=c10d'
        )


def _take_rank_from_slurm() -> None:
    """Name the process to torch.distributed as mmengine's slurm launcher does on GPUs."""
    env = os.environ
    if 'SLURM_PROCID' not in env:
        raise UserError('--launcher slurm: not inside a Slurm job; use tools/slurm_train.sh')
    env.setdefault('MASTER_PORT', '29500')
    if 'MASTER_ADDR' not in env:
        command = ['scontrol', 'show', 'hostnames', env['SLURM_NODELIST']]
        env['MASTER_ADDR'] = subprocess.check_output(command, text=True).split()[0]
    env.update(
        RANK=env['SLURM_PROCID'],
        LOCAL_RANK=env.get('SLURM_LOCALID', '0'),
        WORLD_SIZE=env['SLURM_NTASKS'],
    )

"""Where a detector runs."""

import torch

from mpvit.errors import UserError


def chosen_device(name: str | None = None) -> str:
    """The device that was asked for, tried, or the default one.

    Args:
        name: Such as ``'cuda:1'``; None for a GPU where there is one, else the CPU.

    Raises:
        UserError: There is no such device, or it is full.
    """
    if name is None:
        return 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        torch.empty(1, device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f'device {name} is not to be had here ({reason}); cpu is') from error
    return name

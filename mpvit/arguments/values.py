"""Numbers, names and addresses.

Standard library only, as all of `mpvit.arguments`.
"""

import errno
import importlib.util
import socket
from collections.abc import Sequence

from mpvit.errors import UserError


def check_options(options: Sequence[str]) -> None:
    """Refuse overrides of a wrong form.

    Args:
        options: Overrides, which should read ``key=value``.

    Raises:
        UserError: One of them has no key or no ``=``.
    """
    for option in options:
        key, equals, _ = option.partition('=')
        if not (key and equals):
            raise UserError(f'--cfg-options takes key=value, got {option!r}')


def check_threshold(value: float) -> None:
    """Refuse a score that is none.

    Args:
        value: Lowest score of a detection.

    Raises:
        UserError: It is not in [0, 1].
    """
    if not 0 <= value <= 1:
        raise UserError(f'threshold {value:g}: choose a score from 0 to 1')


def check_batch_size(value: int) -> None:
    """Refuse a number of images that is none.

    Args:
        value: Images at once.

    Raises:
        UserError: It is below 1.
    """
    if value < 1:
        raise UserError(f'batch size {value}: choose 1 or more')


def check_tile(value: int) -> None:
    """Refuse tiles in which nothing can be seen.

    Args:
        value: Side of a tile in pixels.

    Raises:
        UserError: It is below 32.
    """
    if value < 32:
        raise UserError(f'tile {value}: choose the side of a tile in pixels, such as 800')


def check_count(count: int) -> None:
    """Refuse a number of things to show that is none, or that no picture could hold.

    Args:
        count: The number.

    Raises:
        UserError: It is below 1 or above 1000.
    """
    if not 1 <= count <= 1000:
        raise UserError(f'--count {count}: choose from 1 to 1000')


def check_runs(runs: int) -> None:
    """Refuse to time nothing.

    Args:
        runs: Timed runs.

    Raises:
        UserError: There are none.
    """
    if runs < 1:
        raise UserError(f'--runs must be 1 or more, got {runs}; --no-latency measures none')


def check_sizes(sizes: Sequence[Sequence[int]]) -> None:
    """Refuse image sizes without a pixel.

    Args:
        sizes: Heights and widths.

    Raises:
        UserError: One of them is not positive.
    """
    for size in sizes:
        if min(size) < 1:
            raise UserError('--size {} {}: height and width must be 1 or more'.format(*size))


def check_track(names: Sequence[str]) -> None:
    """Refuse to record a training where the package for it is not installed.

    Args:
        names: 'wandb' and so on, which are names of packages.

    Raises:
        UserError: One of them is not installed.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"--track {name}: it is not installed; pip install 'mpvit[tracking]'")


def check_address(host: str, port: int | None) -> None:
    """Refuse an address that a server could not listen on.

    Args:
        host: Name or number of the address.
        port: Port; None for any.

    Raises:
        UserError: The address is not of this machine, or the port is in use or not allowed.
    """
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    try:
        socket.create_server((host, port or 0), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f'port {port} of {host} is in use; choose another --port') from error
        raise UserError(f'cannot listen on {host}, port {port}: {error.strerror}') from error

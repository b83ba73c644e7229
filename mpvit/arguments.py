"""What is wrong with arguments, as far as it can be told from them and the files they name.

Standard library only: the tools load this file without the package, whose import takes seconds,
so that most mistakes are answered at once.
"""

import difflib
import errno
import importlib.util
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mpvit.errors import UserError

_CONFIGS = (Path(__file__).parent / '.mim' / 'configs').resolve()
_PICTURES = ('.png', '.jpg', '.jpeg', '.webp', '.tif', '.tiff', '.svg', '.pdf')


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Check the arguments that are checked here, by the names that all tools give them.

    Args:
        arguments: Values by name; None where an argument was not given.

    Raises:
        UserError: One of them cannot be right.
    """
    for name, check in _CHECKS.items():
        if arguments.get(name) is not None:
            check(arguments[name])


def shipped_configs() -> dict[str, Path]:
    """The configs that come with the package, by the names under which the tools take them."""
    return {path.stem: path for path in sorted(_CONFIGS.glob('[!_]*/*.py'))}


def find_config(name: str | os.PathLike[str]) -> Path:
    """The file that a config's name stands for.

    Args:
        name: Path of a config; or of one that comes with the package, such as
            ``deformable_detr/mpvit_s_ddetr_50e.py``, of which the name ``mpvit_s_ddetr_50e`` is
            enough. A file of that name in the working folder goes first.

    Returns:
        The file.

    Raises:
        UserError: There is no such config; with the one that was probably meant.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.suffix in ('', '.py') and path.name:
        within = path.with_suffix('.py')
        for folder in (_CONFIGS, _CONFIGS.parent, _CONFIGS / 'deformable_detr'):
            if (folder / within).is_file():
                return folder / within
    raise UserError(f'config {path} not found; {_meant_config(path)}')


def _meant_config(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path('configs/deformable_detr')
    choices = {shipped.name: name for name, shipped in shipped_configs().items()}
    choices |= {beside.name: str(folder / beside.name) for beside in folder.glob('*.py')}
    close = difflib.get_close_matches(f'{path.name.removesuffix(".py")}.py', choices, n=1)
    if close:
        return f'did you mean {choices[close[0]]}?'
    if Path('configs').is_dir():
        return 'the configs are in configs/'
    return '`mpvit configs` lists them'


def check_config(path: str | os.PathLike[str]) -> None:
    """Refuse a config that is not there.

    Args:
        path: As for `find_config`.

    Raises:
        UserError: There is no such config; with the one that was probably meant.
    """
    find_config(path)


def check_checkpoint(path: str) -> None:
    """Refuse a checkpoint file that is not there.

    Args:
        path: File or URL; a URL is not looked up.

    Raises:
        UserError: There is no such file.
    """
    if '://' not in path and not Path(path).expanduser().is_file():
        raise UserError(f'checkpoint {path} not found')


def check_resume(path: str) -> None:
    """Refuse a checkpoint to resume from that is not there.

    Args:
        path: As for `check_checkpoint`, or 'auto' for the newest in the work folder.

    Raises:
        UserError: There is no such file.
    """
    if path != 'auto':
        check_checkpoint(path)


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


def check_work_dir(path: str) -> None:
    """Refuse a file in the place of the folder for outputs.

    Args:
        path: The folder, which need not exist.

    Raises:
        UserError: It is a file.
    """
    if Path(path).exists() and not Path(path).is_dir():
        raise UserError(f'work folder {path} is a file; choose another --work-dir')


def check_out(path: str) -> None:
    """Refuse a file for raw detections that is named like something else than a pickle.

    Args:
        path: The file to write.

    Raises:
        UserError: It has another suffix.
    """
    if Path(path).suffix not in ('.pkl', '.pickle'):
        raise UserError(f'--out {path}: the file is a pickle; name it .pkl')


def check_target(path: str | os.PathLike[str]) -> None:
    """Refuse a file or folder to write that exists or whose parent does not.

    Args:
        path: What to write.

    Raises:
        UserError: It cannot be written or would be written over.
    """
    path = Path(path)
    if path.exists():
        raise UserError(f'{path} exists already; choose another name')
    if not path.parent.is_dir():
        raise UserError(f'{path}: there is no folder {path.parent}')


def check_picture(path: str | os.PathLike[str]) -> None:
    """Refuse a picture that cannot be drawn or would be written over something.

    Args:
        path: The file to write.

    Raises:
        UserError: Its suffix is of no known format, it cannot be written, or matplotlib is missing.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _PICTURES:
        raise UserError(f'{path}: a picture ends in {", ".join(_PICTURES[:-1])} or {_PICTURES[-1]}')
    check_target(path)
    if importlib.util.find_spec('matplotlib') is None:
        raise UserError(f"{path}: a picture needs matplotlib; pip install 'mpvit[demo]'")


def check_folder(path: str | os.PathLike[str]) -> None:
    """Refuse a folder that is not there.

    Args:
        path: The folder.

    Raises:
        UserError: There is no such folder.
    """
    path = Path(path)
    if path.is_file():
        raise UserError(f'{path} is a file; name the folder of the dataset')
    if not path.is_dir():
        raise UserError(f'folder {path} not found')


def check_annotations(path: str | os.PathLike[str]) -> None:
    """Refuse an annotation file that is not there.

    Args:
        path: The file.

    Raises:
        UserError: There is no such file.
    """
    if not Path(path).is_file():
        raise UserError(f'annotation file {path} not found')


def check_out_dir(path: str | os.PathLike[str]) -> None:
    """Refuse a folder for results that holds something.

    Args:
        path: The folder, which need not exist.

    Raises:
        UserError: It is a file or not empty.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise UserError(f'--out {path} is a file; name a new folder')
    if path.is_dir() and any(path.iterdir()):
        raise UserError(f'--out {path} is not empty; name a new folder')


def check_threshold(value: float) -> None:
    """Refuse a score that is none.

    Args:
        value: Lowest score of a detection.

    Raises:
        UserError: It is not in [0, 1].
    """
    if not 0 <= value <= 1:
        raise UserError(f'threshold {value}: choose a score from 0 to 1')


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


def check_image(path: str | os.PathLike[str]) -> None:
    """Refuse an image file that is not there.

    Args:
        path: The file.

    Raises:
        UserError: There is no such file.
    """
    if not Path(path).is_file():
        raise UserError(f'image {path} not found')


def check_figure(path: str | os.PathLike[str]) -> None:
    """Refuse a picture to write that exists or is of a type that cannot be drawn.

    Args:
        path: What to write; its folder need not exist.

    Raises:
        UserError: It would be written over, or has another suffix.
    """
    path = Path(path)
    if path.suffix.lower() not in _FIGURES:
        raise UserError(f'{path}: name a picture {", ".join(_FIGURES)}')
    if path.exists():
        raise UserError(f'{path} exists already; choose another name')


def check_sheets(path: str | os.PathLike[str]) -> None:
    """Refuse a file in the place of the folder for contact sheets.

    Args:
        path: The folder, which need not exist.

    Raises:
        UserError: It is a file.
    """
    if Path(path).is_file():
        raise UserError(f'{path} is a file; name a folder with --out')


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


def check_detections(path: str | os.PathLike[str]) -> None:
    """Refuse a file of detections that is not there.

    Args:
        path: The file.

    Raises:
        UserError: There is no such file.
    """
    if not Path(path).is_file():
        raise UserError(
            f'detections {path} not found; tools/test.py writes them as detections.bbox.json'
        )


def check_count(count: int) -> None:
    """Refuse a number of things to show that is none.

    Args:
        count: The number.

    Raises:
        UserError: It is below 1.
    """
    if count < 1:
        raise UserError(f'--count {count}: name 1 or more')


_FIGURES = ('.png', '.jpg', '.pdf', '.svg')


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


def check_runs(runs: int) -> None:
    """Refuse to time nothing.

    Args:
        runs: Timed runs.

    Raises:
        UserError: There are none.
    """
    if runs < 1:
        raise UserError(f'--runs must be 1 or more, got {runs}; --no-latency measures none')


def check_configs(paths: Sequence[str]) -> None:
    """Refuse configs of which one is not there.

    Args:
        paths: Config files.

    Raises:
        UserError: See `check_config`.
    """
    for path in paths:
        check_config(path)


_CHECKS: dict[str, Callable[[Any], None]] = {
    'config': check_config,
    'cfg_options': check_options,
    'checkpoint': check_checkpoint,
    'resume': check_resume,
    'source': check_checkpoint,
    'work_dir': check_work_dir,
    'out': check_out,
    'data': check_folder,
    'train_ann': check_annotations,
    'val_ann': check_annotations,
    'train_images': check_folder,
    'val_images': check_folder,
    'target': check_target,
    'json': check_target,
    'picture': check_picture,
    'fix': check_target,
    'fix_val': check_target,
    'out_dir': check_out_dir,
    'threshold': check_threshold,
    'batch_size': check_batch_size,
    'tile': check_tile,
    'image': check_image,
    'figure': check_figure,
    'track': check_track,
    'sheets': check_sheets,
    'detections': check_detections,
    'count': check_count,
    'configs': check_configs,
    'sizes': check_sizes,
    'runs': check_runs,
}

"""Configs, by path or by name. Standard library only, so that mistakes are answered at once."""

import os
from pathlib import Path

from mpvit.errors import UserError, closest

_MODELS = ('.pth', '.pt', '.bin', '.safetensors', '.onnx', '.xml', '.engine', '.pt2')
_CONFIGS = (Path(__file__).parents[1] / '.mim' / 'configs').resolve()


def shipped_configs() -> dict[str, Path]:
    """The configs that come with the package, by the names under which the tools take them."""
    return {path.stem: path for path in sorted(_CONFIGS.glob('[!_]*/*.py'))}


def is_model_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file is named like a checkpoint or an exported detector."""
    return Path(path).suffix in _MODELS


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
        for folder in (_CONFIGS, _CONFIGS.parent, *sorted(_CONFIGS.glob('[!_]*/'))):
            if (folder / within).is_file():
                return folder / within
    raise UserError(f'config {path} not found; {_meant_config(path)}')


def _meant_config(path: Path) -> str:
    choices = {shipped.name: name for name, shipped in shipped_configs().items()}
    if len(path.parts) > 1 or path.suffix:  # a file was meant
        folder = path.parent if path.parent.is_dir() else Path('configs/deformable_detr')
        choices |= {beside.name: str(folder / beside.name) for beside in folder.glob('*.py')}
    close = closest(f'{path.name.removesuffix(".py")}.py', choices)
    hint = f'did you mean {choices[close]}? ' if close else ''
    return f'{hint}`mpvit configs` lists all'

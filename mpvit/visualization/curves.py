"""Curves of a training: losses, learning rate, AP."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from mpvit.datasets.palette import CLASSES
from mpvit.engine.training_log import History, Series, read_history
from mpvit.errors import UserError
from mpvit.files.writing import check_writable
from mpvit.visualization.style import check_format, new_figure, note, save, shortened, styled

_LOSSES = {
    'loss': 'total',
    'loss_cls': 'class',
    'loss_bbox': 'box (L1)',
    'loss_iou': 'box (GIoU)',
}
_SCORES = {'coco/bbox_mAP': 'AP', 'coco/bbox_mAP_50': 'AP50', 'coco/bbox_mAP_75': 'AP75'}
_SIZES = {'coco/bbox_mAP_s': 'small', 'coco/bbox_mAP_m': 'medium', 'coco/bbox_mAP_l': 'large'}
_MARKED = 25  # up to so many evaluations each gets a dot


def plot_curves(
    work_dirs: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    target: str | os.PathLike[str],
) -> Path:
    """Draw losses, learning rate and AP of one or several trainings.

    Args:
        work_dirs: Work folders, or log folders, of the trainings.
        target: Picture to write: .png, .svg or .pdf.

    Raises:
        UserError: One of the folders has no log, the format is not written, or the file
            cannot be.
    """
    check_format(target)
    check_writable(target)
    if isinstance(work_dirs, str | os.PathLike):
        work_dirs = [work_dirs]
    names = run_names([Path(folder) for folder in work_dirs])
    histories = [read_history(folder, name) for folder, name in zip(work_dirs, names, strict=True)]
    return save(draw_curves(histories), Path(target))


def run_names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell the folders apart.

    Raises:
        UserError: One is named twice.
    """
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise UserError('one of the work folders is named twice; name each once')
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        names = ['/'.join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names


@styled
def draw_curves(histories: Sequence[History]) -> Figure:
    """Draw losses, learning rate and AP: of one run all terms together, of several side by side."""
    return _one_run(histories[0]) if len(histories) == 1 else _several_runs(histories)


def _one_run(history: History) -> Figure:
    figure = new_figure(10, 6.4)
    grid = figure.subplots(2, 2)
    _draw(grid[0, 0], history.training, _LOSSES)
    _label(grid[0, 0], 'Training loss', 'step', logarithmic=True)
    _draw(grid[0, 1], history.training, {'lr': ''})
    _label(grid[0, 1], 'Learning rate', 'step')
    for axes, names, title in (
        (grid[1, 0], _SCORES, 'Validation: AP'),
        (grid[1, 1], _SIZES, 'Validation: AP by box size'),
    ):
        _draw(axes, _known(history.validation), names, marked=True)
        _label(axes, title, 'epoch' if history.by_epoch else 'step', share=True)
    return figure


def _several_runs(histories: Sequence[History]) -> Figure:
    figure = new_figure(11, 6.4 + 0.25 * -(-len(histories) // 3))
    grid = figure.subplots(2, 3)
    unit = 'epoch' if all(history.by_epoch for history in histories) else 'step'
    for place, history in enumerate(histories):
        label = shortened(history.name, 40)
        dashes = ('-', '--', ':')[place // len(CLASSES) % 3]
        style: dict[str, Any] = dict(color=CLASSES[place % len(CLASSES)], ls=dashes)
        for axes, name in zip(grid.flat, [*_LOSSES, 'lr'], strict=False):
            _draw(axes, history.training, {name: label}, **style)
        scores = _known(history.validation)
        _draw(grid[1, 2], scores, {'coco/bbox_mAP': label}, marked=True, **style)
    for axes, title in zip(grid.flat, _LOSSES.values(), strict=False):
        _label(axes, f'Loss: {title}', 'step', logarithmic=True, legend=False)
    _label(grid[1, 1], 'Learning rate', 'step', legend=False)
    _label(grid[1, 2], 'Validation: AP', unit, share=True, legend=False)
    lines: list[Line2D] = max((list(axes.lines) for axes in grid.flat), key=len)
    figure.legend(handles=lines, loc='outside upper center', ncols=min(3, len(histories)))
    return figure


def _known(series: Series) -> Series:
    """Without the -1 that stands for 'no objects of this size'."""
    kept = {}
    for name, (steps, values) in series.items():
        pairs = [pair for pair in zip(steps, values, strict=True) if pair[1] >= 0]
        if pairs:
            kept[name] = ([step for step, _ in pairs], [value for _, value in pairs])
    return kept


def _draw(
    axes: Axes, series: Series, names: dict[str, str], *, marked: bool = False, **style: Any
) -> None:
    for name, label in names.items():
        steps, values = series.get(name, ([], []))
        if steps:
            dots = marked and len(steps) <= _MARKED
            axes.plot(steps, values, label=label, lw=1.6, marker='o' if dots else '', ms=4, **style)


def _label(
    axes: Axes,
    title: str,
    unit: str,
    *,
    logarithmic: bool = False,
    share: bool = False,
    legend: bool = True,
) -> None:
    axes.set_title(title)
    if not axes.lines:
        note(axes, 'nothing was logged')
        return
    axes.set_xlabel(unit)
    if share:
        axes.set_ylim(0, 1)
    if logarithmic and all(np.min(line.get_ydata()) > 0 for line in axes.lines):
        axes.set_yscale('log')
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter('{x:g}')
        axes.yaxis.set_minor_formatter(NullFormatter())
    if legend and len(axes.lines) > 1:
        axes.legend()

"""Numbers of detectors as tables, which are Markdown."""

from collections.abc import Callable, Sequence

import torch
from terminaltables import GithubFlavoredMarkdownTable

from mpvit.engine.run_folder import processor
from mpvit.model_info.info import AtSize, Figures, ModelInfo

_MIB = 2**20


def summary_table(models: Sequence[ModelInfo]) -> str:
    """A line for each detector and image size."""
    header = 'config, parameters, image, G multiply-adds, GFLOP, inference MiB, training MiB'
    header += ', ms (lowest to highest), images/s'
    rows = [_summary(model.name, found) for model in models for found in model.sizes]
    return _table(header.split(', '), rows)


def part_table(found: AtSize) -> str:
    """A line for each part of a detector, at one image size."""
    columns: dict[str, Callable[[Figures], str]] = {
        'parameters': lambda f: f'{f.parameters:,}',
        'trainable': lambda f: f'{f.trainable:,}',
        'G multiply-adds': lambda f: _number(f.multiply_adds, 1e9),
        'GFLOP': lambda f: _number(f.flops, 1e9),
        'training MiB': lambda f: _number(f.kept, _MIB, 1),
        'ms': lambda f: _number(f.seconds, 1e-3, 1),
    }
    rows = [
        [name, *(text(figures) for text in columns.values())]
        for name, figures in found.parts.items()
    ]
    return _table(['part', *columns], rows)


def machine(device: str) -> str:
    """What a device, such as 'cuda:0', is and what runs on it, in one line."""
    if torch.device(device).type == 'cuda':
        return f'{torch.cuda.get_device_name(device)}; torch {torch.__version__}'
    return f'{processor()}, {torch.get_num_threads()} threads; torch {torch.__version__}'


def _summary(name: str, found: AtSize) -> list[str]:
    total = found.total
    latency = _number(total.seconds, 1e-3, 0)
    if found.seconds:
        low, high = (_number(end(found.seconds), 1e-3, 0) for end in (min, max))
        latency += f' ({low} to {high})'
    return [
        name,
        f'{total.parameters / 1e6:.1f}M',
        '{}x{}'.format(*found.size),
        _number(total.multiply_adds, 1e9, 1),
        _number(total.flops, 1e9, 1),
        _number(found.peak, _MIB, 0),
        _number(total.kept, _MIB, 0),
        latency,
        f'{1 / total.seconds:.3g}' if total.seconds else '–',
    ]


def _number(value: float | None, unit: float, digits: int = 3) -> str:
    return '–' if value is None else f'{value / unit:,.{digits}f}'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown that can be read as it is; all columns but the first are aligned to the right."""
    table = GithubFlavoredMarkdownTable([header, *rows])
    table.justify_columns = dict.fromkeys(range(1, len(header)), 'right')
    return str(table.table)

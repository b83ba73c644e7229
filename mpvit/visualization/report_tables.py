"""What was trained on what, and by what, as lines for a table."""

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from mpvit.datasets.check.table import SIZE_LIMITS, Split, build_table, read_content
from mpvit.engine.run_folder import METRICS, Run
from mpvit.engine.training_log import History, duration

Facts = list[tuple[str, str]]


@dataclass(frozen=True)
class DataFacts:
    """What a split of a dataset holds.

    Attributes:
        split: 'training' or 'evaluation'.
        file: Annotation file.
        images: How many.
        empty: How many of them without objects.
        objects: How many, without crowds.
        by_class: Objects by class name.
        by_size: Objects by size: small, medium, large, by their annotated area, as in COCO.
    """

    split: str
    file: str
    images: int
    empty: int
    objects: int
    by_class: dict[str, int]
    by_size: dict[str, int]


def data_facts(run: Run) -> tuple[list[DataFacts], list[str]]:
    """What the data of a run hold.

    Args:
        run: The run.

    Returns:
        The splits that can be read, and why others cannot.
    """
    facts, missing = [], []
    for split, name in (('train', 'training'), ('test', 'evaluation')):
        file = run.data(split).get('annotations')
        if not file:
            missing.append(f'The {name} data: neither the config nor metrics.json names one file.')
            continue
        content, problems = read_content(Split(file, ''))
        if content is None:
            missing.append(f'The {name} data: {file} {problems[0].message}.')
            continue
        facts.append(_counted(name, str(file), content))
    return facts, missing


def _counted(split: str, file: str, content: dict[str, Any]) -> DataFacts:
    table = build_table(content, Split(file, ''), 'train')
    real = (table.image_row >= 0) & (table.category_row >= 0) & ~table.crowd
    counts = np.bincount(table.category_row[real], minlength=len(table.names))
    sizes = np.histogram(table.areas[real], [0, *SIZE_LIMITS, np.inf])[0].tolist()
    return DataFacts(
        split=split,
        file=file,
        images=len(table.images),
        empty=len(table.images) - len(np.unique(table.image_row[real])),
        objects=int(real.sum()),
        by_class=dict(zip(table.names, counts.tolist(), strict=True)),
        by_size=dict(zip(('small', 'medium', 'large'), sizes, strict=True)),
    )


def training_facts(run: Run, history: History | None) -> Facts:
    """What was trained and how long it took.

    Args:
        run: The run.
        history: What the training logged.
    """
    named = [('config', run.config_file.name)] if run.config_file else []
    config = run.config or {}
    facts = [*named, *_model_facts(config), *_schedule_facts(config, history)]
    return [*facts, *_record_facts(run.training)]


def _model_facts(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    model = config.get('model')
    if not model:
        return
    model = model.get('module', model)
    backbone = model.get('backbone', {})
    size = backbone.get('arch') or backbone.get('depth') or ''
    if isinstance(size, Mapping):
        size = ', '.join(f'{key} {value}' for key, value in size.items())
    yield 'backbone', f'{backbone.get("type")} {size}'.strip()
    kinds = [
        text
        for key, text in (('with_box_refine', 'box refinement'), ('as_two_stage', 'two stages'))
        if model.get(key)
    ]
    yield 'detector', ', '.join([str(model.get('type')), *kinds])
    if model.get('num_queries'):
        yield 'queries', str(model['num_queries'])
    classes = model.get('bbox_head', {}).get('num_classes')
    if classes:
        yield 'classes', str(classes)


def _schedule_facts(
    config: Mapping[str, Any], history: History | None
) -> Iterator[tuple[str, str]]:
    planned = config.get('train_cfg', {}).get('max_epochs')
    done = history.epochs if history else 0
    if done:
        yield 'epochs', str(done) if planned in (None, done) else f'{done} of {planned} planned'
    batch = config.get('train_dataloader', {}).get('batch_size')
    if batch:
        yield 'images per step and process', str(batch)
    optimizer = config.get('optim_wrapper', {}).get('optimizer', {})
    if optimizer:
        yield 'optimizer', f'{optimizer.get("type")}, learning rate {optimizer.get("lr")}'
    if history is None:
        return
    times = [time for time in map(duration, history.logs) if time is not None]
    parts = f', in {len(times)} parts' if len(times) > 1 else ''
    if times:
        yield 'time', f'{_spoken(sum(times, timedelta()))}{parts}'
    start = _started(history.logs[0].name)
    if start:
        yield 'started', start


def _record_facts(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Of ``run.json``: how and with what the last part of the training was started."""
    for key in ('seed', 'processes', 'launcher'):
        if key in record:
            yield key, str(record[key])
    yield from _software(record)


def _software(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, text in (record.get('software') or {}).items():
        yield name, str(text)


def evaluation_facts(run: Run) -> Facts:
    """What was evaluated, how, and with which software.

    Args:
        run: The run.
    """
    record = run.evaluation
    if not record:
        return []
    facts = [('checkpoint', str(record.get('checkpoint')))]
    inference = record.get('inference') or {}
    if inference:
        facts.append(('precision', str(inference.get('dtype'))))
    written = datetime.fromtimestamp((run.folder / METRICS).stat().st_mtime)
    return [*facts, *_software(record), ('evaluated', f'{written:%Y-%m-%d %H:%M}')]


def commands(run: Run) -> list[str]:
    """How to repeat the run, as commands.

    Args:
        run: The run.
    """
    config = run.config_file
    if config is None:
        return []
    lines = [f'python tools/train.py {_shown(config)} --work-dir NEW_FOLDER']
    if run.checkpoint is not None:
        lines.append(f'python tools/test.py {_shown(config)} {_shown(run.checkpoint)}')
    return lines


def files(run: Run) -> Facts:
    """Where the parts of the run are.

    Args:
        run: The run.
    """
    named = [('work folder', run.folder), ('config', run.config_file)]
    named += [('checkpoint', run.checkpoint)]
    found = [(name, str(Path(path).absolute())) for name, path in named if path is not None]
    return [(name, path if Path(path).exists() else f'{path} (not found)') for name, path in found]


def _shown(path: Path) -> str:
    """A path as it can be typed here."""
    relative = os.path.relpath(path)
    return shlex.quote(str(path) if relative.startswith('..') else relative)


def _started(name: str) -> str:
    """When a training started, by the name of its log folder."""
    try:
        return f'{datetime.strptime(name, "%Y%m%d_%H%M%S"):%Y-%m-%d %H:%M}'
    except ValueError:
        return ''


def _spoken(time: timedelta) -> str:
    """A time in its two largest units."""
    seconds = round(time.total_seconds())
    units = ((86400, 'd'), (3600, 'h'), (60, 'min'), (1, 's'))
    parts: list[str] = []
    for length, unit in units:
        count, seconds = divmod(seconds, length)
        if count or parts:
            parts.append(f'{count} {unit}')
    return ' '.join(parts[:2]) or '0 s'

"""The numbers that a training logged, with those of its interruptions joined."""

import json
import math
import os
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from mpvit.errors import UserError
from mpvit.files.records import check_form, is_kind
from mpvit.files.untrusted import JSON_BYTES, read_untrusted

_STAMP = re.compile(r'^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - ', re.MULTILINE)
_RECORD = dict(step=int, epoch=int)
_NOT_SERIES = {'step', 'iter', 'epoch'}
Series = dict[str, tuple[list[float], list[float]]]


@dataclass(frozen=True)
class History:
    """What a training logged.

    Attributes:
        name: Of the run, for a legend.
        training: Numbers of the training steps by name, each as steps and values.
        validation: Numbers of the evaluations by name, each as epochs (or steps) and values.
        by_epoch: Whether evaluations are counted in epochs.
        epochs: The last epoch of which a step was logged; 0 if there are none.
        logs: Log folders that it was put together from, oldest first.
    """

    name: str
    training: Series
    validation: Series
    by_epoch: bool
    epochs: int
    logs: tuple[Path, ...]

    def last(self, name: str) -> float | None:
        """The last value of a number; None if it was never logged."""
        values = (self.training.get(name) or self.validation.get(name) or ([], []))[1]
        return values[-1] if values else None


def read_history(work_dir: str | os.PathLike[str], name: str = '') -> History:
    """Read what was logged in a work folder, by one training and those that resumed it.

    What a resumed training did again counts once, as done last. Lines that a kill left incomplete,
    or that are no record of a step, are passed over, and so are values that are no numbers.

    Args:
        work_dir: Folder of a training, or the log folder of a part of it.
        name: Of the run; that of the folder by default.

    Raises:
        UserError: No training has left its numbers there.
    """
    work = Path(work_dir)
    files = sorted(work.glob('*/vis_data/scalars.json')) or sorted(
        work.glob('vis_data/scalars.json')
    )
    training: list[dict[str, Any]] = []
    validation: list[dict[str, Any]] = []
    logs = []
    for file in files:
        records = _records(file)
        steps = [record for record in records if 'loss' in record]
        if not steps:
            continue  # an evaluation by itself
        logs.append(file.parent.parent)
        training = _continued(training, steps)
        validation = _continued(validation, [record for record in records if 'loss' not in record])
    if not logs:
        raise UserError(
            f'{work} has no log of a training (*/vis_data/scalars.json); name the work folder of '
            'one, such as work_dirs/mpvit_t_dino_toy'
        )
    epochs = max((record.get('epoch') or 0 for record in training), default=0)
    # in a training by epochs evaluations log the epoch as their step
    by_epoch = bool(epochs) and all(record['step'] <= epochs for record in validation)
    return History(
        name=name or work.resolve().name,
        training=_series(training),
        validation=_series(validation),
        by_epoch=by_epoch,
        epochs=epochs,
        logs=tuple(logs),
    )


def duration(log_dir: Path) -> timedelta | None:
    """How long a part of a training ran, by its log folder; None if there is no readable log."""
    stamps = [
        time
        for path in log_dir.glob('*.log')
        for stamp in _STAMP.finditer(_text(path))
        if (time := _time(stamp[1])) is not None
    ]
    return max(stamps) - min(stamps) if stamps else None


def _time(stamp: str) -> datetime | None:
    try:
        return datetime.strptime(stamp, '%Y/%m/%d %H:%M:%S')
    except ValueError:  # such as the 99th of a month
        return None


def _text(path: Path) -> str:
    return read_untrusted(path, JSON_BYTES).decode(errors='replace')


def _records(path: Path) -> list[dict[str, Any]]:
    records = []
    for line in _text(path).splitlines():
        try:
            record = json.loads(line)
            check_form(record, _RECORD)
        except (ValueError, RecursionError):
            continue
        if record.get('step') is not None:
            records.append(record)
    return records


def _continued(earlier: list[dict[str, Any]], later: list[dict[str, Any]]) -> list[dict[str, Any]]:
    start = min((record['step'] for record in later), default=math.inf)
    return [record for record in earlier if record['step'] < start] + later


def _series(records: list[dict[str, Any]]) -> Series:
    series: Series = {}
    for record in records:
        for name, value in record.items():
            if name not in _NOT_SERIES and is_kind(value, float):
                steps, values = series.setdefault(name, ([], []))
                steps.append(record['step'])
                values.append(value)
    return series

"""Categories against the classes of the config, against each other, and how often they occur."""

from collections.abc import Iterator, Sequence

import numpy as np

from mpvit.datasets.check.boxes import BoxFaults, usable
from mpvit.datasets.check.problems import Problem, problem
from mpvit.datasets.check.table import Table

_RARE = 10  # boxes
_IMBALANCE = 100  # times


def config_problems(table: Table, faults: BoxFaults, classes: Sequence[str]) -> Iterator[Problem]:
    """Compare the categories of a file with the classes of the config.

    Args:
        table: The file.
        faults: Of its boxes.
        classes: Names in the order of the labels.
    """
    names = table.names
    for name in classes:
        if name not in names:
            yield problem('class-not-in-data', f'there is no category {name!r}', table.file)
    for name, count in class_counts(table, faults).items():
        if name not in classes and count:  # Roboflow's category 0 has none
            what = f'category {name!r} with {count} box(es) is no class'
            yield problem('class-not-in-config', what, table.file)
    common = [name for name in names if name in classes]
    expected = [name for name in classes if name in names]
    if len(set(common)) == len(common) and common != expected:
        what = f'the order in the file is {_listed(common)}, in the config {_listed(expected)}'
        yield problem('class-order', what, table.file)


def split_problems(train: Table, val: Table) -> Iterator[Problem]:
    """Compare the categories of two files.

    Args:
        train: Training data.
        val: Validation data.
    """
    if train.names != val.names:
        what = f'categories are {_listed(val.names)}, in {train.file} {_listed(train.names)}'
        yield problem('categories-differ', what, val.file)


def balance_problems(
    table: Table, faults: BoxFaults, classes: Sequence[str] | None
) -> Iterator[Problem]:
    """How often the classes occur in training data.

    Args:
        table: The file.
        faults: Of its boxes.
        classes: Names that count; None for all.
    """
    counts = {
        name: count
        for name, count in class_counts(table, faults).items()
        if classes is None or name in classes
    }
    for name, count in counts.items():
        if count == 0:
            yield problem('class-without-boxes', f'category {name!r} has no box', table.file)
        elif count < _RARE:
            what = f'category {name!r} has {count} box{"es" if count > 1 else ""}'
            yield problem('class-rare', what, table.file)
    present = {name: count for name, count in counts.items() if count}
    if present and max(present.values()) > _IMBALANCE * min(present.values()):
        most, least = max(present, key=present.__getitem__), min(present, key=present.__getitem__)
        what = f'{present[most]} boxes of {most!r}, {present[least]} of {least!r}'
        yield problem('class-imbalance', what, table.file)


def class_counts(table: Table, faults: BoxFaults) -> dict[str, int]:
    """Usable boxes of every category, in the file's order.

    Args:
        table: The file.
        faults: Of its boxes.
    """
    rows = table.category_row[usable(table, faults)]
    counts = np.bincount(rows, minlength=len(table.categories))
    return dict(zip(table.names, counts.tolist(), strict=True))


def _listed(names: Sequence[str]) -> str:
    return f'({", ".join(names[:6])}{", ..." if len(names) > 6 else ""})'

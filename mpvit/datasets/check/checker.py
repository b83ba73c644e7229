"""The check of a dataset: reads its files and asks everything that the other modules know."""

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from mpvit.datasets.check.boxes import BoxFaults, box_faults, box_problems
from mpvit.datasets.check.classes import balance_problems, config_problems, split_problems
from mpvit.datasets.check.image_files import Facts, look_at, sample_paths
from mpvit.datasets.check.images import copy_problems, image_problems, orphan_problems
from mpvit.datasets.check.problems import Problem, problem
from mpvit.datasets.check.scales import Scales, scale_problems
from mpvit.datasets.check.table import (
    Split,
    Table,
    build_table,
    form_problems,
    listed_images,
    read_content,
)
from mpvit.errors import UserError


@dataclass
class Inspection:
    """What was seen and found.

    Attributes:
        tables: The annotation files that could be read.
        faults: Of their boxes.
        facts: Of the image files that were looked at, by path.
        problems: What is wrong, by file and check.
        scales: How images are resized.
    """

    tables: list[Table]
    faults: list[BoxFaults]
    facts: dict[str, Facts]
    problems: list[Problem]
    scales: Scales | None

    @property
    def failed(self) -> bool:
        """Whether there is anything fatal or an error."""
        return any(found.severity in ('fatal', 'error') for found in self.problems)

    def table(self, role: str) -> Table:
        """The annotation file of a split.

        Args:
            role: 'train' or 'val'.

        Raises:
            UserError: It could not be read, or there is none.
        """
        for table in self.tables:
            if table.role == role:
                return table
        raise UserError(f'there is no {role} annotation file in COCO format to repair')


def check_dataset(
    train: Split,
    val: Split | None = None,
    *,
    classes: Sequence[str] | None = None,
    scales: Scales | None = None,
    exif_turns: bool = False,
    quick: bool = False,
    workers: int | None = None,
) -> list[Problem]:
    """Look for problems in a dataset in COCO format.

    Args:
        train: Training data.
        val: Validation data, to be checked too and compared with the training data.
        classes: Names of the classes in the order of the config; None for no comparison.
        scales: How images are resized; None for no check of sizes after resizing.
        exif_turns: Images are loaded as their EXIF data turn them (``color_type='color'``).
        quick: Look for a sample of the image files only, and decode only a few.
        workers: Threads that read images; None for one for each CPU core.

    Returns:
        What was found, in an order that does not depend on ``workers``. What can be found is in
        `CHECKS`.
    """
    return inspect_dataset(
        train,
        val,
        classes=classes,
        scales=scales,
        exif_turns=exif_turns,
        quick=quick,
        workers=workers,
    ).problems


def inspect_dataset(
    train: Split,
    val: Split | None = None,
    *,
    classes: Sequence[str] | None = None,
    scales: Scales | None = None,
    exif_turns: bool = False,
    quick: bool = False,
    workers: int | None = None,
    other_files: Sequence[str | os.PathLike[str]] = (),
) -> Inspection:
    """As `check_dataset`, and keep what was read, for a report, a picture or a repair.

    Args:
        train: As for `check_dataset`.
        val: As for `check_dataset`.
        classes: As for `check_dataset`.
        scales: As for `check_dataset`.
        exif_turns: As for `check_dataset`.
        quick: As for `check_dataset`.
        workers: As for `check_dataset`.
        other_files: Further annotation files, such as that of the test data, which are not
            checked: images that they list are not taken for forgotten.
    """
    found = Inspection([], [], {}, [], scales)
    folders = []
    for role, split in (('train', train), ('val', val)):
        if split is not None:
            _read(found, split, role)
            folders += [os.fspath(split.images)] if os.path.isdir(split.images) else []
    for table, faults in zip(found.tables, found.faults, strict=True):
        found.problems += _annotation_problems(table, faults, classes, scales)
    if classes is None and len(found.tables) == 2:
        found.problems += split_problems(*found.tables)
    _look_at_images(found, quick, workers or len(os.sched_getaffinity(0)))
    if exif_turns:
        found.facts = {path: fact.turned() for path, fact in found.facts.items()}
    for table in found.tables:
        found.problems += image_problems(table, found.facts)
    found.problems += copy_problems(found.tables, found.facts)
    if not quick and len(found.tables) == (1 if val is None else 2):
        found.problems += orphan_problems(found.tables, folders, listed_images(other_files))
    return found


def _read(found: Inspection, split: Split, role: str) -> None:
    with _collector_off():
        content, problems = read_content(split)
        table = None if content is None else build_table(content, split, role)
    found.problems += problems
    if not os.path.isdir(split.images):
        folder = os.fspath(split.images)
        found.problems.append(problem('folder-missing', f'no image folder for {role}', folder))
    if table is not None:
        found.tables.append(table)
        found.faults.append(box_faults(table))


@contextmanager
def _collector_off() -> Iterator[None]:
    """Without the garbage collector, which would look at millions of dicts again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _annotation_problems(
    table: Table, faults: BoxFaults, classes: Sequence[str] | None, scales: Scales | None
) -> Iterator[Problem]:
    yield from form_problems(table)
    yield from box_problems(table, faults)
    if classes is not None:
        yield from config_problems(table, faults, classes)
    if table.role == 'train':
        yield from balance_problems(table, faults, classes)
        if scales is not None:
            yield from scale_problems(table, faults, scales)


def _look_at_images(found: Inspection, quick: bool, workers: int) -> None:
    """Fill in the facts; files of a folder that is not there are not looked for one by one."""
    lists = [table.paths for table in found.tables if os.path.isdir(table.folder)]
    if quick:
        lists = [sample_paths(list(dict.fromkeys(paths))) for paths in lists]
    paths = list(dict.fromkeys(path for paths in lists for path in paths))
    facts = look_at(paths, workers)
    found.facts.update({fact.path: fact for fact in facts})

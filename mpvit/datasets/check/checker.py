"""The check of a dataset: reads its files and asks everything that the other modules know."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mpvit.datasets.annotations import Split, read_annotations
from mpvit.datasets.check.classes import (
    balance_problems,
    config_problems,
    scale_problems,
    split_problems,
)
from mpvit.datasets.check.entries import box_problems, form_problems
from mpvit.datasets.check.expectations import OFFICIAL, Scales
from mpvit.datasets.check.image_files import Facts, look_at, sample_paths
from mpvit.datasets.check.images import (
    copy_problems,
    image_problems,
    narrow_problems,
    orphan_problems,
)
from mpvit.datasets.check.problems import Problem
from mpvit.datasets.table import AnnotationFileError, Annotations
from mpvit.errors import UserError


@dataclass
class Inspection:
    """What was seen and found.

    Attributes:
        scales: How images are resized.
        tables: The annotation files that could be read, by role, 'train' or 'val'.
        used: How many images and boxes a training or an evaluation takes of each file.
        facts: Of the image files that were looked at, by path.
        problems: What is wrong, by file and check.
    """

    scales: Scales | None
    tables: dict[str, Annotations] = field(default_factory=dict)
    used: dict[str, tuple[int, int]] = field(default_factory=dict)
    facts: dict[str, Facts] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether there is anything fatal or an error."""
        return any(found.severity in ('fatal', 'error') for found in self.problems)

    def table(self, role: str) -> Annotations:
        """The annotation file of a split, 'train' or 'val'.

        Raises:
            UserError: It could not be read, or there is none.
        """
        if role not in self.tables:
            raise UserError(f'there is no {role} annotation file in COCO format to repair')
        return self.tables[role]


def check_dataset(train: Split, val: Split | None = None, **options: Any) -> list[Problem]:
    """Look for the problems in `CHECKS`, with the arguments of `inspect_dataset`.

    The order of what is found does not depend on ``workers``.
    """
    return inspect_dataset(train, val, **options).problems


def inspect_dataset(
    train: Split,
    val: Split | None = None,
    *,
    classes: Sequence[str] | None = None,
    filter_cfg: Mapping[str, Any] | None = None,
    scales: Scales | None = None,
    exif_turns: bool = False,
    quick: bool = False,
    workers: int | None = None,
    other_files: Sequence[str | os.PathLike[str]] = (),
    root: str | os.PathLike[str] | None = None,
) -> Inspection:
    """As `check_dataset`, and keep what was read, for a report, a picture or a repair.

    Args:
        train: Training data.
        val: Validation data, to be checked too and compared with the training data.
        classes: Names of the classes in the order of the config; None for no comparison.
        filter_cfg: Which images a training leaves out, as mmdet's datasets take it.
        scales: How images are resized; None for no check of sizes after resizing.
        exif_turns: Images are loaded as their EXIF data turn them (``color_type='color'``).
        quick: Look for a sample of the image files only, and decode only a few.
        workers: Threads that read images; None for one for each CPU core.
        other_files: Further annotation files, such as that of the test data, which are not
            checked: images that they list are not taken for forgotten.
        root: Folder of a dataset that is checked as a whole, and so has to have validation data.
    """
    found = Inspection(scales)
    splits = {role: split for role, split in (('train', train), ('val', val)) if split is not None}
    for role, split in splits.items():
        found.problems += _read(found, split, role)
    if root is not None and val is None:
        found.problems.append(Problem('val-missing', 'no validation split', os.fspath(root)))
    tables = list(found.tables.values())
    for role, table in found.tables.items():
        images, boxes = table.used(classes, filter_cfg, role == 'train')
        found.used[role] = int(images.sum()), int(boxes.sum())
        found.problems += form_problems(table)
        found.problems += box_problems(table, role, boxes)
        found.problems += _class_problems(table, role, classes, scales)
    if classes is None and len(tables) == 2:
        found.problems += split_problems(*tables)
    facts = _look_at_images(tables, quick, workers or len(os.sched_getaffinity(0)))
    found.facts = {fact.path: fact.turned() if exif_turns else fact for fact in facts}
    for table in tables:
        found.problems += image_problems(table, found.facts)
        found.problems += narrow_problems(table, found.facts, scales or OFFICIAL)
    found.problems += copy_problems(tables, found.facts)
    if not quick and len(tables) == len(splits):
        folders = [os.fspath(split.images) for split in splits.values()]
        found.problems += orphan_problems(tables, folders, _listed_images(other_files))
    return found


def _read(found: Inspection, split: Split, role: str) -> Iterator[Problem]:
    try:
        table = read_annotations(split.ann_file, strict=False)
    except AnnotationFileError as error:
        yield Problem(error.code, error.reason, os.fspath(split.ann_file))
    else:
        found.tables[role] = table.within(split.images)
        if table.starts_with_mark:
            yield Problem('json-bom', 'starts with a byte order mark', table.file)
    if not os.path.isdir(split.images):
        yield Problem('folder-missing', f'no image folder for {role}', os.fspath(split.images))


def _listed_images(files: Iterable[str | os.PathLike[str]]) -> Iterator[str]:
    """File names of the images in annotation files, as far as these can be read."""
    for file in files:
        try:
            table = read_annotations(file, strict=False, unlabelled=True)
        except AnnotationFileError:
            continue
        yield from (image['file_name'] for image in table.images)


def _class_problems(
    table: Annotations, role: str, classes: Sequence[str] | None, scales: Scales | None
) -> Iterator[Problem]:
    if classes is not None:
        yield from config_problems(table, classes)
    if role == 'train':
        yield from balance_problems(table, classes)
        if scales is not None:
            yield from scale_problems(table, scales)


def _look_at_images(tables: Sequence[Annotations], quick: bool, workers: int) -> list[Facts]:
    """Files of a folder that is not there are not looked for one by one."""
    paths: dict[str, None] = {}
    for table in tables:
        if os.path.isdir(table.folder):
            unique = dict.fromkeys(table.paths)
            paths |= dict.fromkeys(sample_paths(list(unique))) if quick else unique
    return look_at(list(paths), workers)

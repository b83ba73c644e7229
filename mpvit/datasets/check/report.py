"""What was found, as text and as JSON."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from mpvit.datasets.check.checker import Inspection
from mpvit.datasets.check.problems import CHECKS, SEVERITIES, Problem
from mpvit.datasets.coco_format import FAULTS
from mpvit.datasets.table import Annotations
from mpvit.errors import printable


def text_report(found: Inspection, shown: int = 3) -> str:
    """What was found as text, the worst kinds first; of one kind as many as ``shown``."""
    lines = []
    for role, table in found.tables.items():
        images, boxes, categories = counts_in(table)
        lines += [
            f'{role}: {images:,} images, {boxes:,} annotations, '
            f'{categories:,} categories ({table.file})',
            f'    {used_text(role, *found.used[role])}',
        ]
    for group in grouped(found.problems):
        lines += ['', *_group_lines(group, shown)]
    return '\n'.join(map(printable, [*lines, '', verdict(found.problems)]))


def counts_in(table: Annotations) -> tuple[int, ...]:
    """How many images, annotations and categories stand in a file, malformed ones too."""
    return tuple(len(table.content.get(kind, ())) for kind in FAULTS)


def used_text(role: str, images: int, boxes: int) -> str:
    """How much of a file a split takes: 'training uses 80 images and 181 boxes of these'."""
    work = 'training' if role == 'train' else 'validation'
    return f'{work} uses {images:,} images and {boxes:,} boxes of these'


def _group_lines(group: Sequence[Problem], shown: int) -> Iterator[str]:
    first = group[0]
    times = f'{len(group):,} x ' if len(group) > 1 else ''
    yield f'{first.severity}: {times}{CHECKS[first.code].meaning} [{first.code}]'
    for found in group[:shown]:
        ids = dict(image=found.image_id, annotation=found.annotation_id)
        parts = [f'{name} {id_}' for name, id_ in ids.items() if id_ is not None]
        yield f'    {", ".join([found.file, *parts])}: {found.message}'
    if len(group) > shown:
        yield f'    ... and {len(group) - shown:,} more'
    if first.fix != 'nothing to do':
        yield f'    fix: {first.fix}'


def verdict(problems: Sequence[Problem]) -> str:
    """How many problems of each severity, in one line."""
    counts = severity_counts(problems)
    return ', '.join(f'{number:,} {severity}' for severity, number in counts.items())


def severity_counts(problems: Sequence[Problem]) -> dict[str, int]:
    """How many problems of each severity, the worst first."""
    counts = Counter(found.severity for found in problems)
    return {severity: counts[severity] for severity in SEVERITIES}


def grouped(problems: Sequence[Problem]) -> list[list[Problem]]:
    """Problems of one kind together, the worst kinds first, otherwise in the order of `CHECKS`."""
    worst_first = list(SEVERITIES)
    groups: dict[str, list[Problem]] = {
        code: [] for code in sorted(CHECKS, key=lambda c: worst_first.index(CHECKS[c].severity))
    }
    for found in problems:
        groups[found.code].append(found)
    return [group for group in groups.values() if group]


def json_report(found: Inspection) -> dict[str, Any]:
    """Everything that was found, as plain values."""
    return dict(
        splits=[
            dict(
                role=role,
                file=table.file,
                **dict(zip(FAULTS, counts_in(table), strict=True)),
                **dict(zip(('used_images', 'used_boxes'), found.used[role], strict=True)),
            )
            for role, table in found.tables.items()
        ],
        counts=severity_counts(found.problems),
        problems=[
            dict(severity=one.severity, **asdict(one), fix=one.fix) for one in found.problems
        ],
    )

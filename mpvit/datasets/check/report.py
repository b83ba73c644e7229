"""What was found, as text and as JSON."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from mpvit.datasets.check.checker import Inspection
from mpvit.datasets.check.problems import CHECKS, SEVERITIES, Problem


def text_report(found: Inspection, shown: int = 3) -> str:
    """What was found as text, the worst kinds first; of one kind as many as ``shown``."""
    lines = [
        f'{role}: {len(table.images):,} images, {len(table.annotations):,} annotations, '
        f'{len(table.categories):,} categories ({table.file})'
        for role, table in found.tables.items()
    ]
    for group in grouped(found.problems):
        lines += ['', *_group_lines(group, shown)]
    return '\n'.join([*lines, '', verdict(found.problems)])


def _group_lines(group: Sequence[Problem], shown: int) -> Iterator[str]:
    first = group[0]
    times = f'{len(group):,} x ' if len(group) > 1 else ''
    yield f'{first.severity}: {times}{CHECKS[first.code].meaning} [{first.code}]'
    for found in group[:shown]:
        yield f'    {_where(found)}: {found.message}'
    if len(group) > shown:
        yield f'    ... and {len(group) - shown:,} more'
    if first.fix != 'nothing to do':
        yield f'    fix: {first.fix}'


def _where(found: Problem) -> str:
    parts = [found.file]
    if found.image_id is not None:
        parts.append(f'image {found.image_id}')
    if found.annotation_id is not None:
        parts.append(f'annotation {found.annotation_id}')
    return ', '.join(parts)


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
    groups = defaultdict(list)
    for found in problems:
        groups[found.code].append(found)
    codes = [code for code in CHECKS if code in groups]
    order = list(SEVERITIES)
    return [groups[code] for code in sorted(codes, key=lambda c: order.index(CHECKS[c].severity))]


def json_report(found: Inspection) -> dict[str, Any]:
    """Everything that was found, as plain values."""
    return dict(
        splits=[
            dict(
                role=role,
                file=table.file,
                images=len(table.images),
                annotations=len(table.annotations),
                categories=len(table.categories),
            )
            for role, table in found.tables.items()
        ],
        counts=severity_counts(found.problems),
        problems=[asdict(one) for one in found.problems],
    )

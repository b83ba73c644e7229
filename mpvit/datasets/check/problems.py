"""What a problem is, and all that are looked for."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Literal, cast

from mpvit.errors import UserError

Severity = Literal['fatal', 'error', 'warning', 'info']

#: The worst first, with what each of them means.
SEVERITIES: dict[Severity, str] = {
    'fatal': 'training would stop or learn the wrong thing; `mpvit train` refuses the data',
    'error': 'images or boxes are lost or wrong, or the evaluation has no meaning',
    'warning': 'training works, but you probably did not mean this',
    'info': 'worth knowing',
}


@dataclass(frozen=True)
class Check:
    """One thing that is looked for.

    Attributes:
        severity: How bad it is.
        meaning: What it says about the data.
        fix: What to do.
        repaired: `repair` takes care of it.
    """

    severity: Severity
    meaning: str
    fix: str
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that was found.

    Attributes:
        code: What it is, a key of `CHECKS`.
        message: What is wrong, with the values.
        file: Annotation file, image or folder.
        image_id: Id of the image, where it is about one.
        annotation_id: Id of the annotation, where it is about one.
    """

    code: str
    message: str
    file: str
    image_id: int | None = None
    annotation_id: int | None = None

    @property
    def severity(self) -> Severity:
        """How bad it is, a key of `SEVERITIES`."""
        return CHECKS[self.code].severity

    @property
    def fix(self) -> str:
        """What to do."""
        return CHECKS[self.code].fix


def size_text(size: Iterable[float]) -> str:
    """A width and height as text."""
    return 'x'.join(f'{side:g}' for side in size)


def refuse_fatal(problems: Iterable[Problem]) -> None:
    """Refuse to go on where something fatal was found.

    Raises:
        UserError: With one line for every kind of fatal problem: the first of the kind, and how
            many more there are in all files.
    """
    kinds: dict[str, list[Problem]] = defaultdict(list)
    for found in problems:
        if found.severity == 'fatal':
            kinds[found.code].append(found)
    if len(kinds) > 1:  # what leaves no box has its own line
        kinds.pop('no-usable-box', None)
    lines = []
    for first, *others in kinds.values():
        more = f' (and {len(others)} more like it)' if others else ''
        lines.append(f'{first.file}: {first.message}{more}; {first.fix} [{first.code}]')
    if lines:
        raise UserError(*lines)


def _read_checks() -> dict[str, Check]:
    text = resources.files(__package__).joinpath('checks.md').read_text('utf-8')
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in text.splitlines()[2:]]
    return {
        code.strip('`'): Check(cast(Severity, severity), meaning, fix, repaired == 'yes')
        for code, severity, meaning, fix, repaired in rows
    }


#: Everything that is looked for, by code: the table ``checks.md`` in this folder.
CHECKS = _read_checks()

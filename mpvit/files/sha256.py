"""The sha256 of a file, which its name or its publisher may state."""

import hashlib
import os
import re
from pathlib import Path

from mpvit.errors import UserError

# torch.hub and the authors of CoaT write the beginning of the sha256 at the end of a file's name;
# eight digits without a letter would rather be a date
_IN_NAME = re.compile(r'[-_](?=\d*[a-f])([0-9a-f]{8})\.[a-z]+$')


def sha256_in_name(name: str) -> str | None:
    """The beginning of the sha256 that a file's name ends with, as in ``resnet50-0676ba61.pth``."""
    found = _IN_NAME.search(name)
    return found[1] if found else None


def check_sha256(
    path: str | os.PathLike[str],
    expected: str | None = None,
    shown: str | None = None,
    what: str = 'checkpoint',
) -> None:
    """Make sure that a file is the one that its name and its publisher say.

    Args:
        path: File.
        expected: Its sha256 in hex, or the beginning; None for what its name says alone.
        shown: What to call the file, such as its address; its last part is the name that counts.
        what: What it should be.

    Raises:
        UserError: It is another file, or ``expected`` is no sha256.
    """
    shown = shown or str(path)
    named = sha256_in_name(shown)
    wanted = [prefix.lower() for prefix in (expected, named) if prefix]
    for prefix in wanted:
        if not re.fullmatch('[0-9a-f]{8,64}', prefix):
            raise UserError(f'{prefix!r} is not a sha256: 8 to 64 hex digits are expected')
    actual = _digest(Path(path)) if wanted else ''
    for prefix in wanted:
        if not actual.startswith(prefix):
            given = 'by its name ' if prefix == named else ''
            remedy = 'download it again' + (', or rename it if it is yours' if given else '')
            raise UserError(
                f'{what} {shown} has the sha256 {actual}, but should {given}have {prefix}; it '
                f'is damaged or another file; {remedy}'
            )


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()

"""torch and torchvision that do not fit together: what is installed, and what to install."""

import importlib.util
import re
from pathlib import Path

# Their own words: compiled operators that did not load, or for another major version of CUDA.
_MIXED = re.compile(
    r'torchvision::\w+|PyTorch and torchvision were compiled|partially initialized module '
    r"'torchvision'|torchvision\S*\.so|Couldn't load custom C\+\+ ops"
)
_VERSION = re.compile(r"__version__ = '((\d+)\.(\d+)\.(\d+)[^+']*(?:\+([\w.]+))?)'")
_PUBLISHED = re.compile(r'cpu|cu\d+|rocm[\d.]+')  # builds that PyTorch's own index has
_LONGEST = 10_000  # characters of an error that are looked at
_INDEX = 'https://download.pytorch.org/whl'


def mixed_builds(error: BaseException) -> str | None:
    """A line for what torch or torchvision raise where they are of different builds, else None."""
    text = ' '.join(str(error)[:_LONGEST].split())
    found = [_version(name) for name in ('torch', 'torchvision')]
    if isinstance(error, ModuleNotFoundError) or not _MIXED.search(text) or None in found:
        return None
    torch, torchvision = (match for match in found if match)
    # 0.19.1 was released for torch 2.4.1, and so on
    wanted = f'torchvision==0.{int(torch[3]) + 15}.{torch[4]}'
    index = f' --index-url {_INDEX}/{torch[5]}' if _PUBLISHED.fullmatch(torch[5] or '') else ''
    return (
        f'torch {torch[1]} and torchvision {torchvision[1]} do not fit together '
        f'({text.partition(". ")[0]}); install the torchvision of this torch: `pip install '
        f'--force-reinstall --no-deps {wanted}{index}`'
    )


def _version(package: str) -> re.Match[str] | None:
    """The version of a package and its parts, from its file, since it cannot be imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).with_name('version.py').read_text(encoding='utf-8')
    except OSError:
        return None
    return _VERSION.search(text)

"""What all pictures share: colours, figures, and how they are written."""

import io
import os
import re
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import jinja2
import matplotlib
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from mpvit.datasets.palette import CLASSES
from mpvit.errors import UserError
from mpvit.files.writing import write

FORMATS = ('.png', '.svg', '.pdf')
_INK = '#0b0c0d'  # of text and lines; an SVG gets the colour of the page instead
_NAME = 24  # characters of a name in a picture
_PAGE = 1120  # pixels up to which a chart shrinks with its page
_SHRINKS = 0.6  # of its width, down to which it does
_STYLE: Any = {
    'font.size': 10,
    'axes.titlesize': 11,
    'axes.titleweight': 'bold',
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.edgecolor': _INK,
    'axes.labelcolor': _INK,
    'axes.grid': True,
    'axes.axisbelow': True,
    'axes.prop_cycle': cycler(color=CLASSES),
    'grid.color': _INK,
    'grid.alpha': 0.15,
    'legend.frameon': False,
    'legend.fontsize': 9,
    'savefig.dpi': 120,
    'svg.fonttype': 'none',  # text stays text: small, selectable, in the reader's fonts
    'svg.hashsalt': 'mpvit',  # the same picture is the same file
    'text.color': _INK,
    'text.parse_math': False,  # a class may be called $5
    'xtick.color': _INK,
    'ytick.color': _INK,
}
P = ParamSpec('P')


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Give a function that draws a figure the common style."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return drawn


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches; it touches no global state and needs no display."""
    figure = Figure(figsize=(width, height), layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def shortened(name: str, length: int = _NAME, end: bool = False) -> str:
    """A name in at most so many characters: its beginning or, as tells files apart, its end."""
    name = ' '.join(name.split())
    if len(name) <= length:
        return name
    return f'…{name[1 - length :]}' if end else f'{name[: length - 1].rstrip()}…'


def note(axes: Axes, text: str) -> None:
    """Say in an empty chart why it is empty."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha='center', va='center', transform=axes.transAxes)


def saying(axes: Axes, bars: BarContainer, texts: Sequence[str], size: float = 9) -> None:
    """Have lying bars say their numbers, so that they need no axis."""
    axes.bar_label(bars, texts, padding=3, fontsize=size)
    axes.xaxis.set_visible(False)
    axes.tick_params(axis='y', length=0)
    axes.grid(visible=False)
    axes.spines['bottom'].set_visible(False)


def template(path: Path) -> jinja2.Template:
    """A template of HTML beside the code, which escapes what it is given."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(path.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(path.name)


def check_format(path: str | os.PathLike[str]) -> None:
    """Refuse a picture in a format that is not written.

    Raises:
        UserError: It has another suffix.
    """
    if Path(path).suffix.lower() not in FORMATS:
        raise UserError(f'{path}: a picture is written as {", ".join(FORMATS)}; name it so')


def save(figure: Figure, path: Path) -> Path:
    """Write a figure in the format that its suffix names."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Glyph .* missing from')
        metadata = {'Date': None} if path.suffix.lower() == '.svg' else None
        content = io.BytesIO()
        figure.savefig(content, format=path.suffix[1:].lower(), metadata=metadata)
    return write(path, content.getvalue())


def svg(figure: Figure, prefix: str) -> str:
    """A figure as an element for a web page, in the page's colours, which may be dark.

    The prefix makes its ids unique in the page; matplotlib has escaped its texts.
    """
    target = io.StringIO()
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Glyph .* missing from')
        figure.savefig(target, format='svg', transparent=True, metadata={'Date': None})
    text = target.getvalue()
    text = text[text.index('<svg') :]
    text = re.sub(r'<metadata>.*?</metadata>', '', text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(url\(|href=")#', rf'\1#{prefix}-', text)
    width = round(figure.get_figwidth() * 96)  # pixels of CSS
    least = width if width > _PAGE else round(_SHRINKS * width)  # the page scrolls what is wider
    size = f'width:100%;max-width:{width}px;min-width:{least}px'
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', rf'\1 style="{size}"', text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1', text, count=1)
    return text.replace(_INK, 'currentColor')

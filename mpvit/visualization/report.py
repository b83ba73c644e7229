"""Puts the report together: facts, charts and images of a run into one HTML file."""

import base64
import io
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from mpvit import __version__
from mpvit.datasets.palette import class_colour
from mpvit.engine.run_folder import Run, find_run
from mpvit.engine.training_log import read_history
from mpvit.errors import UserError
from mpvit.evaluation.analysis import STATS, Analysis, analyse
from mpvit.evaluation.error_types import ERROR_TYPES
from mpvit.visualization import report_tables as facts
from mpvit.visualization.charts import CHARTS, ERROR_NAMES
from mpvit.visualization.curves import draw_curves
from mpvit.visualization.error_pictures import Photos
from mpvit.visualization.style import svg, writing

_QUALITY = 80  # of the JPEG files
_CROP = 180  # pixels
_RECORDED = ('mAP', *(f'mAP_{part}' for part in ('50', '75', 's', 'm', 'l')), 'AR@1', 'AR@10')
_RECORDED += ('AR@100', *(f'AR_{size}@100' for size in 'sml'))
#: What the 12 numbers are.
STAT_NAMES = (
    'mean over IoU 0.50 to 0.95',
    'at IoU 0.50',
    'at IoU 0.75',
    'small objects',
    'medium objects',
    'large objects',
    'recall, 1 detection an image',
    'recall, 10 detections',
    'recall, 100 detections',
    'recall, small objects',
    'recall, medium objects',
    'recall, large objects',
)


def write_report(
    work_dir: str | os.PathLike[str],
    target: str | os.PathLike[str] | None = None,
    *,
    threshold: float = 0.3,
    count: int = 8,
) -> tuple[Path, list[str]]:
    """Write everything there is to know about a run into one HTML file.

    It needs no other file and no network. What is missing in the folder is said in its place.

    Args:
        work_dir: Work folder of a training, of an evaluation or of both.
        target: File to write; None for ``report.html`` in the folder.
        threshold: Score from which a detection is counted and drawn, in [0, 1].
        count: Images and mistakes of each kind that are shown.

    Returns:
        The file, and what is missing in it.

    Raises:
        UserError: The folder holds no run at all.
    """
    run = find_run(work_dir)
    history, no_history = _tried(lambda: read_history(run.folder))
    analysis, no_analysis = _tried(lambda: analyse(run.results(), threshold))
    if history is None and analysis is None and not run.evaluation:
        raise UserError(
            f'{run.folder} holds neither a log of a training nor an evaluation (metrics.json); '
            'name the work folder of a run'
        )
    data, no_data = facts.data_facts(run)
    page = dict(
        title=run.folder.resolve().name,
        made=f'{datetime.now():%Y-%m-%d %H:%M}',
        version=__version__,
        threshold=threshold,
        history=history,
        analysis=analysis,
        training=facts.training_facts(run, history),
        evaluation=facts.evaluation_facts(run),
        stats=_stats(run, analysis),
        missing=dict(history=no_history, analysis=no_analysis, data=no_data),
        curves=_embedded(draw_curves([history]), 'curves') if history else None,
        charts=_charts(analysis),
        chart_names={name: text for name, (_, text) in CHARTS.items()},
        classes=_class_rows(analysis, data),
        photos=_photos(analysis, count),
        data=data,
        files=facts.files(run),
        commands=facts.commands(run),
    )
    target = Path(target) if target is not None else run.folder / 'report.html'
    text = _template().render(page)
    with writing(target):
        target.write_text(text, encoding='utf-8')
    return target, [reason for reason in (no_history, no_analysis, *no_data) if reason]


def _tried(read: Callable[[], Any]) -> tuple[Any, str]:
    """What was read, or why it was not."""
    try:
        return read(), ''
    except UserError as error:
        return None, str(error)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters['share'] = lambda value: '–' if np.isnan(value) else f'{value:.3f}'
    return environment.get_template('report.html')


def _stats(run: Run, analysis: Analysis | None) -> list[tuple[str, str, float]]:
    """The 12 numbers: name, meaning, value; those of the evaluation, or else computed anew."""
    metrics = run.evaluation.get('metrics') or {}
    recorded: list[Any] = [metrics.get(f'coco/bbox_{key}') for key in _RECORDED]
    if all(isinstance(value, int | float) for value in recorded):
        values = [float(value) if value >= 0 else float('nan') for value in recorded]
    elif analysis is not None:
        values = list(analysis.stats.values())
    else:
        return []
    return list(zip(STATS, STAT_NAMES, values, strict=True))


def _charts(analysis: Analysis | None) -> dict[str, Markup]:
    if analysis is None:
        return {}
    return {name: _embedded(draw(analysis), name) for name, (draw, _) in CHARTS.items()}


def _embedded(figure: Figure, name: str) -> Markup:
    """A chart as an element of the page; matplotlib has escaped its texts."""
    return Markup(svg(figure, name))


def _class_rows(analysis: Analysis | None, data: Sequence[facts.DataFacts]) -> list[dict[str, Any]]:
    if analysis is None:
        return []
    trained = next((part.by_class for part in data if part.split == 'training'), {})
    return [
        row | dict(trained=trained.get(row['name']), colour=class_colour(row['label']))
        for row in analysis.class_rows()
    ]


def _photos(analysis: Analysis | None, count: int) -> dict[str, Any]:
    """The images of the report with their captions."""
    if analysis is None:
        return {}
    photos, crops = Photos(analysis), Photos(analysis, _CROP)
    names = [path.name for path in analysis.results.files]
    sheets = {
        name: [
            dict(source=_jpeg(photos.picture(i)), file=names[i], caption=photos.caption(i))
            for i in images
        ]
        for name, images in (
            ('worst', analysis.images.worst(count)),
            ('best', analysis.images.best(count)),
        )
    }
    mistakes = {
        ERROR_NAMES[kind]: [
            dict(source=_jpeg(m.picture), file=names[m.image], caption=m.caption)
            for m in crops.mistakes(kind, count)
        ]
        for kind in ERROR_TYPES
    }
    return dict(
        **sheets,
        mistakes={kind: shown for kind, shown in mistakes.items() if shown},
        unreadable=len({*photos.unreadable, *crops.unreadable}),
        folder=str(analysis.results.files[0].parent),
    )


def _jpeg(picture: Image.Image) -> str:
    """A picture as the address of itself."""
    target = io.BytesIO()
    picture.save(target, 'JPEG', quality=_QUALITY, optimize=True)
    return 'data:image/jpeg;base64,' + base64.b64encode(target.getvalue()).decode()

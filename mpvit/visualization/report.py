"""The report: facts, charts and images of a run in one HTML file."""

import base64
import io
import os
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mpvit import __version__
from mpvit.datasets.annotations import SIZE_LIMITS, read_annotations
from mpvit.datasets.palette import class_colour
from mpvit.datasets.table import AnnotationFileError
from mpvit.engine.run_folder import METRICS, Run, find_run
from mpvit.engine.training_log import History, duration, read_history
from mpvit.errors import UserError
from mpvit.evaluation.analysis import Analysis
from mpvit.evaluation.coco import STATS
from mpvit.evaluation.error_types import ERROR_TYPES
from mpvit.files.records import is_kind
from mpvit.files.writing import check_writable, write
from mpvit.visualization.charts import CHARTS, ERROR_NAMES
from mpvit.visualization.curves import draw_curves
from mpvit.visualization.error_pictures import Photos
from mpvit.visualization.style import svg, template

_QUALITY = 80  # of the JPEG files
_CROP = 180  # pixels
#: The 12 numbers, by their names in ``metrics.json`` after ``coco/bbox_``, and what they are.
_STATS = {
    'mAP': 'mean over IoU 0.50 to 0.95',
    'mAP_50': 'at IoU 0.50',
    'mAP_75': 'at IoU 0.75',
    'mAP_s': 'small objects',
    'mAP_m': 'medium objects',
    'mAP_l': 'large objects',
    'AR@1': 'recall, 1 detection an image',
    'AR@10': 'recall, 10 detections',
    'AR@100': 'recall, 100 detections',
    'AR_s@100': 'recall, small objects',
    'AR_m@100': 'recall, medium objects',
    'AR_l@100': 'recall, large objects',
}
Facts = dict[str, Any]  # what is None or empty is not shown


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
        work_dir: Of a training, of an evaluation or of both.
        target: File to write; None for ``report.html`` in the folder.
        threshold: Score from which a detection is counted and drawn, in [0, 1].
        count: Images and mistakes of each kind that are shown.

    Returns:
        The file, and what is missing in it.

    Raises:
        UserError: The folder holds no run at all, or the file cannot be written.
    """
    run = find_run(work_dir)
    target = Path(target) if target is not None else run.folder / 'report.html'
    check_writable(target)
    history, no_history = _tried(lambda: read_history(run.folder))
    analysis, no_analysis = _tried(lambda: Analysis(run.results(), threshold))
    if history is None and analysis is None and not run.evaluation:
        raise UserError(
            f'{run.folder} holds neither a log of a training nor an evaluation (metrics.json); '
            'name the work folder of a run'
        )
    data, no_data = data_facts(run)
    page = dict(
        title=run.folder.resolve().name,
        made=f'{datetime.now():%Y-%m-%d %H:%M}',
        version=__version__,
        threshold=threshold,
        history=history,
        analysis=analysis,
        training=_training_facts(run, history),
        evaluation=_evaluation_facts(run),
        stats=_stats(run, analysis),
        missing=dict(history=no_history, analysis=no_analysis, data=no_data),
        charts=_charts(history, analysis),
        classes=analysis.class_rows() if analysis else [],
        class_colour=class_colour,
        trained={part['split']: part['by_class'] for part in data}.get('training', {}),
        photos=_photos(analysis, count),
        data=data,
        files=_files(run),
        commands=_commands(run),
    )
    html = template(Path(__file__).with_name('report.html')).render(page)
    return write(target, html), [reason for reason in (no_history, no_analysis, *no_data) if reason]


def _tried(read: Callable[[], Any]) -> tuple[Any, str]:
    """What was read, or why it was not."""
    try:
        return read(), ''
    except UserError as error:
        return None, str(error)


def _stats(run: Run, analysis: Analysis | None) -> list[tuple[str, str, float]]:
    """The 12 numbers: name, meaning, value; those of the evaluation, or else computed anew."""
    metrics = run.evaluation.get('metrics') or {}
    recorded: list[Any] = [metrics.get(f'coco/bbox_{key}') for key in _STATS]
    if all(is_kind(value, float) for value in recorded):
        values = [float(value) if value >= 0 else float('nan') for value in recorded]
    elif analysis is not None:
        values = list(analysis.stats.values())
    else:
        return []
    return list(zip(STATS, _STATS.values(), values, strict=True))


def _charts(history: History | None, analysis: Analysis | None) -> dict[str, tuple[str, str]]:
    """SVG by name, each with what it shows."""
    charts = {}
    if history:
        text = 'Curves of losses, learning rate and AP'
        charts['curves'] = (svg(draw_curves([history]), 'curves'), text)
    if analysis:
        charts |= {name: (svg(draw(analysis), name), text) for name, (draw, text) in CHARTS.items()}
    return charts


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
        for name, images in analysis.ranked_images(count).items()
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


def data_facts(run: Run) -> tuple[list[dict[str, Any]], list[str]]:
    """What the data of a run hold.

    Returns:
        The splits that can be read: ``split``, ``file``, numbers of ``images``, of ``empty`` ones
        and of ``objects`` but crowds, these also ``by_class`` and ``by_size`` (by their annotated
        area, as in COCO); and why other splits cannot be read.
    """
    facts, missing = [], []
    for split, name in (('train', 'training'), ('test', 'evaluation')):
        file = run.data(split).get('annotations')
        if not file:
            missing.append(f'The {name} data: neither the config nor metrics.json names one file.')
            continue
        try:
            facts.append(dict(split=name, file=str(file), **_counted(file)))
        except AnnotationFileError as error:
            missing.append(f'The {name} data: {file} {error.reason}.')
    return facts, missing


def _counted(file: str) -> dict[str, Any]:
    table = read_annotations(file, strict=False)
    real = table.usable
    sizes = np.histogram(table.areas[real], [0, *SIZE_LIMITS, np.inf])[0].tolist()
    return dict(
        images=len(table.images),
        empty=len(table.images) - len(np.unique(table.image_row[real])),
        objects=int(real.sum()),
        by_class=table.class_counts(),
        by_size=dict(zip(('small', 'medium', 'large'), sizes, strict=True)),
    )


def _training_facts(run: Run, history: History | None) -> Facts:
    """What was trained, how, how long, and with which software."""
    config: Mapping[str, Any] = run.config or {}
    model = config.get('model') or {}
    model = model.get('module') or model
    optimizer = (config.get('optim_wrapper') or {}).get('optimizer')
    loader = config.get('train_dataloader') or {}
    return {
        'config': run.config_file and run.config_file.name,
        **_model_facts(model),
        'epochs': _epochs((config.get('train_cfg') or {}).get('max_epochs'), history),
        'images per step and process': loader.get('batch_size'),
        'optimizer': optimizer and f'{optimizer.get("type")}, learning rate {optimizer.get("lr")}',
        **(_times(history) if history else {}),
        **{key: run.training.get(key) for key in ('seed', 'processes', 'launcher')},
        **(run.training.get('software') or {}),
    }


def _model_facts(model: Mapping[str, Any]) -> dict[str, Any]:
    backbone = model.get('backbone') or {}
    size = backbone.get('arch') or backbone.get('depth') or ''
    if isinstance(size, Mapping):
        sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in size.items()}
        size = ', '.join(f'{key} {value}' for key, value in sizes.items())
    head = model.get('bbox_head')
    refined = 'box refinement' if model.get('with_box_refine') else ''
    staged = 'two stages' if model.get('as_two_stage') else ''
    return dict(
        backbone=f'{backbone.get("type") or ""} {size}'.strip(),
        detector=', '.join(filter(None, (model.get('type'), refined, staged))),
        queries=model.get('num_queries'),
        classes=head.get('num_classes') if isinstance(head, Mapping) else None,  # or several heads
    )


def _epochs(planned: int | None, history: History | None) -> str:
    done = history.epochs if history else 0
    more = '' if planned in (None, done) else f' of {planned} planned'
    return f'{done}{more}' if done else ''


def _times(history: History) -> dict[str, str]:
    """How long a training took, and when it started, by the name of its log folder."""
    times = [time for time in map(duration, history.logs) if time is not None]
    took = str(sum(times, timedelta())).partition('.')[0]
    parts = f', in {len(times)} parts' if len(times) > 1 else ''
    facts = dict(time=f'{took}{parts}' if times else '')
    with suppress(ValueError):
        start = datetime.strptime(history.logs[0].name, '%Y%m%d_%H%M%S')
        facts['started'] = f'{start:%Y-%m-%d %H:%M}'
    return facts


def _evaluation_facts(run: Run) -> Facts:
    """What was evaluated, how, and with which software."""
    record = run.evaluation
    if not record:
        return {}
    written = datetime.fromtimestamp((run.folder / METRICS).stat().st_mtime)
    return {
        'checkpoint': record.get('checkpoint'),
        'precision': (record.get('inference') or {}).get('dtype'),
        **(record.get('software') or {}),
        'evaluated': f'{written:%Y-%m-%d %H:%M}',
    }


def _files(run: Run) -> Facts:
    """Where the parts of the run are."""
    named = {'work folder': run.folder, 'config': run.config_file, 'checkpoint': run.checkpoint}
    return {
        name: f'{path.absolute()}{"" if path.exists() else " (not found)"}'
        for name, path in named.items()
        if path is not None
    }


def _commands(run: Run) -> list[str]:
    """How to repeat the run."""
    config = run.config_file
    if config is None:
        return []
    lines = [f'mpvit train {_shown(config)} --work-dir NEW_FOLDER']
    if run.checkpoint is not None:
        lines.append(f'mpvit test {_shown(config)} {_shown(run.checkpoint)}')
    return lines


def _shown(path: Path) -> str:
    """A path as it can be typed here."""
    relative = os.path.relpath(path)
    return shlex.quote(str(path) if relative.startswith('..') else relative)

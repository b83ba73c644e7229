"""What lies in the work folder of a run: its records, config, checkpoints and detections."""

import functools
import json
import os
import platform
import re
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mpvit import __version__
from mpvit.config.literals import NOT_DATA, literal_entries
from mpvit.datasets.check.expectations import settings_of
from mpvit.errors import UserError
from mpvit.evaluation.result_files import Results, read_results
from mpvit.files.paths import existing_run, newest_config
from mpvit.files.records import check_form, read_record
from mpvit.files.untrusted import TEXT_BYTES, read_untrusted
from mpvit.files.writing import write

RECORD = 'run.json'
METRICS = 'metrics.json'
DETECTIONS = 'detections.bbox.json'
POINTER = 'last_checkpoint'
RUN = 'run_id'  # in the message hub, and so in every checkpoint
_ID = 'id'  # the same in `RECORD`
_HOW_TO = 'evaluate first: mpvit test CONFIG CHECKPOINT --work-dir {}'
_CHECKPOINT = re.compile(r'(epoch|iter)_\d+\.pth')

# What is read of the records and of a config, in the form that `mpvit.files.records` takes.
_DATA = dict(annotations=str, images=str, detections=str, classes=[str], exif_turns=bool)
_TRAINING = dict(settings=dict, software=dict)
_EVALUATION = dict(checkpoint=str, data=_DATA, inference=dict, metrics=dict, **_TRAINING)
_DATASET: dict[str, Any] = dict(data_root=str, ann_file=str, data_prefix=dict(img=str))
_DATASET |= dict(metainfo=dict(classes=[str]), pipeline=[dict], dataset=_DATASET)
_MODEL: dict[str, Any] = dict(type=str, backbone=dict)
_CONFIG = dict(
    model=_MODEL | dict(module=_MODEL),
    optim_wrapper=dict(optimizer=dict),
    train_cfg=dict,
    **{f'{split}_dataloader': dict(dataset=_DATASET) for split in ('train', 'val', 'test')},
)


@dataclass(frozen=True)
class Run:
    """The work folder of a training or evaluation."""

    folder: Path

    @functools.cached_property
    def training(self) -> dict[str, Any]:
        """What `write_record` wrote at the start of the last training; empty if there is none."""
        return read_record(self.folder / RECORD, _TRAINING)

    @functools.cached_property
    def evaluation(self) -> dict[str, Any]:
        """What `write_metrics` wrote after the last evaluation; empty if there is none."""
        return read_record(self.folder / METRICS, _EVALUATION)

    @functools.cached_property
    def config(self) -> Config | None:
        """The complete config, as it was recorded: of the training, or else of the evaluation.

        Runs of earlier versions have it in `config_file` only, which is read as data: what lies in
        a work folder is never executed.
        """
        settings = self.training.get('settings')
        path = newest_config(self.folder) if settings is None else self.folder / RECORD
        if path is None:
            settings = self.evaluation.get('settings')
            written = newest_config(self.folder, test=True)
            path = written if settings is None else self.folder / METRICS
        return None if path is None else _config(path, settings)

    @functools.cached_property
    def config_file(self) -> Path | None:
        """The newest config of a training, or else of an evaluation, as it was written there."""
        return newest_config(self.folder) or newest_config(self.folder, test=True)

    @property
    def checkpoint(self) -> Path | None:
        """What was evaluated, or else the last checkpoint of the training."""
        name = self.evaluation.get('checkpoint') or _pointed(self.folder)
        return None if name is None else Path(name)

    def data(self, split: str = 'test') -> dict[str, Any]:
        """Where the data of a split are, as `data_of`; of an evaluation also ``detections``."""
        recorded = self.evaluation.get('data') if split == 'test' else None
        if isinstance(recorded, dict):
            return recorded
        return data_of(self.config, split) if self.config is not None else {}

    def results(self) -> Results:
        """The detections of the last evaluation, with the ground truth.

        Raises:
            UserError: There are none, or the annotation file is not where it was.
        """
        data = self.data()
        detections, own = Path(data.get('detections') or ''), self.folder / DETECTIONS
        # the folder may have been moved or copied: then the record names the first one's
        if not detections.is_file() or (detections.name == DETECTIONS and own.is_file()):
            detections = own
        if not detections.is_file():
            raise UserError(f'{self.folder} has no {DETECTIONS}; {_HOW_TO.format(self.folder)}')
        annotations = data.get('annotations')
        if not annotations or not Path(annotations).is_file():
            reason = (
                f'annotation file {annotations} of {self.folder} not found; name where it is now'
                if annotations
                else f'{self.folder} does not say what was evaluated ({METRICS}); name the files'
            )
            raise UserError(f'{reason}: --ann FILE --images DIR --detections {detections}')
        return read_results(
            annotations,
            detections,
            data.get('images') or '',
            data.get('classes'),
            data.get('exif_turns'),
        )


def _config(path: Path, settings: Any) -> Config:
    """The config in a file, of which the settings were read already if it is a record.

    Raises:
        UserError: It is none.
    """
    try:
        if settings is None:
            settings = literal_entries(read_untrusted(path, TEXT_BYTES).decode('utf-8'))
        check_form(settings, _CONFIG)
        return Config(settings)
    except (*NOT_DATA, KeyError, OSError) as error:
        raise UserError(
            f'cannot read config {path} as data: {error}; mpvit writes one into a work folder'
        ) from error


def find_run(folder: str | os.PathLike[str]) -> Run:
    """The run of a work folder.

    Raises:
        UserError: It is not there.
    """
    return Run(Path(existing_run(folder)))


def candidates(work_dir: str | os.PathLike[str]) -> list[Path]:
    """Checkpoints of trainings in a folder, in the order to try them in.

    The one that ``last_checkpoint`` names comes first, then the others by time. The best
    checkpoints are not among them: they hold weights only. Which of them are of the folder's run
    is known when they are read (`checkpoint_run`).
    """
    folder = Path(work_dir)
    pointed = _pointed(folder)
    named = [pointed] if pointed is not None and os.path.isfile(pointed) else []
    found = [path for path in folder.glob('*.pth') if _CHECKPOINT.fullmatch(path.name)]
    found.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return named + [path for path in found if path.resolve() not in [p.resolve() for p in named]]


def is_used(folder: Path) -> bool:
    """Whether a training has left checkpoints in a folder, which another one would replace."""
    return bool(candidates(folder)) or any(folder.glob('best_*.pth'))


def last_checkpoint(work_dir: str | os.PathLike[str]) -> str:
    """Which checkpoint a training can go on from, as the end of a sentence."""
    path = _pointed(Path(work_dir))
    if path is None:
        return 'no checkpoint had been written'
    return f'the last checkpoint is {path}, --resume goes on from it'


def _pointed(folder: Path) -> Path | None:
    """What ``last_checkpoint`` names; None from the start of a training to its first checkpoint.

    It is a name in the folder. A path, which mmengine writes, or which leads to an ``out_dir`` of
    the checkpoints that is elsewhere, counts where the folder has no file of that name: a folder
    that was moved or copied is about its own files.
    """
    try:
        text = read_untrusted(folder / POINTER, TEXT_BYTES).decode(errors='replace').strip()
    except OSError:
        return None
    name = Path(text).name
    if not name:
        return None
    inside = folder / name
    elsewhere = os.path.isabs(text) and not os.path.isfile(inside)
    return Path(text) if elsewhere else inside


def point_to(work_dir: str | os.PathLike[str], path: str) -> None:
    """Write ``last_checkpoint``: the name of a file in the folder, the path of another.

    Raises:
        NotWritten: It cannot be written.
    """
    folder = Path(work_dir)
    text = Path(path).name if Path(path).parent == folder else path
    write(folder / POINTER, text, durable=True)


def start_of(folder: Path) -> dict[str, Any]:
    """What ``run.json`` says; empty also where it is damaged."""
    try:
        return read_record(folder / RECORD, {})
    except UserError:
        return {}


def run_of(folder: Path) -> str | None:
    """The id of the run in a folder, of which its checkpoints are.

    None where there is no record, or the run began with a version that gave none.
    """
    found = start_of(folder).get(_ID)
    return found if isinstance(found, str) else None


def checkpoint_run(checkpoint: Mapping[str, Any]) -> str | None:
    """The id of the run that a checkpoint is of; None if it has none."""
    found: Any = checkpoint
    for key in ('message_hub', 'runtime_info', RUN):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, str) else None


def begin_run(
    folder: Path, resumed: str | None = None, source: str | os.PathLike[str] = ''
) -> str | None:
    """Write into ``run.json`` which run the checkpoints are of that are written from now on.

    Args:
        folder: The work folder.
        resumed: Id of the run that goes on, '' for one that has none; None for a new run.
        source: The checkpoint that is resumed.

    Returns:
        Its id; None if it has none.

    Raises:
        UserError: The folder holds checkpoints of another run, or cannot be written.
    """
    own = run_of(folder)
    lost_record = own is None and Path(source).resolve().parent == folder.resolve()
    if resumed not in (None, own or '') and is_used(folder) and not lost_record:
        raise UserError(
            f'{folder} holds another run than that of {source}; resume it in another --work-dir'
        )
    run = uuid.uuid4().hex if resumed is None else resumed or None
    _record(folder / RECORD, start_of(folder) | {_ID: run})
    return run


def write_record(cfg: Config, **facts: Any) -> None:
    """Write ``run.json``: what is trained, on what, with which software and other facts.

    The id of the run is that which is there; `begin_run` changes it.
    """
    folder = Path(cfg.work_dir)
    data = {split: data_of(cfg, split) for split in ('train', 'val')}
    record: dict[str, Any] = {_ID: run_of(folder)}
    record |= dict(config=cfg.filename, started=f'{datetime.now():%Y-%m-%d %H:%M:%S}')
    record |= dict(launcher=cfg.get('launcher', 'none'), **facts, data=data, software=software())
    _record(folder / RECORD, record | dict(settings=cfg.to_dict()))


def write_metrics(
    cfg: Config,
    checkpoint: str,
    metrics: Mapping[str, float],
    data: Mapping[str, Any],
    inference: Mapping[str, Any],
) -> Path:
    """Write ``metrics.json``: the numbers of an evaluation, and what they are of.

    Args:
        cfg: Complete config of the evaluation.
        checkpoint: What was evaluated, as it was named; an exported file is not in ``cfg``.
        metrics: The numbers.
        data: As `data_of`, and ``detections``, their file.
        inference: How the detector was run.
    """
    record = dict(config=cfg.filename, checkpoint=str(checkpoint), inference=inference)
    record |= dict(data=data, software=software(), settings=cfg.to_dict(), metrics=metrics)
    return _record(Path(cfg.work_dir) / METRICS, record)


def _record(path: Path, content: Mapping[str, Any]) -> Path:
    return write(path, json.dumps(content, indent=2, default=_plain) + '\n', durable=True)


def _plain(value: Any) -> Any:
    """A number of numpy or torch as one of Python; what else a config may hold as its name."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return sorted(map(str, value)) if isinstance(value, (set, frozenset)) else str(value)


def data_of(config: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Where a complete config has the data of a split: 'train', 'val' or 'test'.

    Returns:
        ``annotations``, ``images``, ``classes`` and ``exif_turns`` (whether images are loaded as
        their EXIF data turn them), as far as they are known: nothing of datasets that are put
        together from several, and no classes where the dataset class has its own.
    """
    loader = config.get(f'{split}_dataloader') or {}
    dataset = loader.get('dataset') or {}
    while dataset.get('dataset'):  # a wrapper, such as RepeatDataset
        dataset = dataset['dataset']
    if dataset.get('ann_file') is None:
        return {}
    root = dataset.get('data_root') or ''
    prefix = (dataset.get('data_prefix') or {}).get('img') or ''
    settings = settings_of(dataset)
    return dict(
        annotations=os.path.join(root, dataset['ann_file']),
        images=os.path.join(root, prefix),
        classes=settings['classes'],
        exif_turns=settings['exif_turns'] if dataset.get('pipeline') else None,
    )


def software() -> dict[str, str]:
    """Versions, the revision of the code where it is in a git checkout, and the device."""
    import mmcv  # these are not needed to read what others wrote
    import mmdet
    import mmengine
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f'CPU ({processor()})'
    revision = _revision()
    return dict(
        mpvit=__version__,
        **(dict(revision=revision) if revision else {}),
        python=platform.python_version(),
        **{package.__name__: package.__version__ for package in (torch, mmengine, mmcv, mmdet)},
        device=device,
    )


def _revision() -> str:
    """The commit, with ``-dirty`` where files were changed since; empty outside of a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / '.git').exists():
        return ''  # installed, perhaps inside some other repository
    command = ['git', 'describe', '--always', '--dirty', '--abbrev=12']
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return ''
    return done.stdout.strip()


def processor() -> str:
    """The name of the CPU, as far as the system tells."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(': ')[2] for line in lines if line.startswith('model name')]
    return names[0] if names else platform.machine()

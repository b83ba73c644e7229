"""What lies in the work folder of a run: its records, config, checkpoints and detections."""

import functools
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mpvit import __version__
from mpvit.datasets.check.expectations import settings_of
from mpvit.errors import UserError
from mpvit.evaluation.result_files import Results, read_results
from mpvit.files.paths import existing_run, newest_config
from mpvit.files.writing import write

RECORD = 'run.json'
METRICS = 'metrics.json'
DETECTIONS = 'detections.bbox.json'
POINTER = 'last_checkpoint'
_HOW_TO = 'evaluate first: mpvit test CONFIG CHECKPOINT --work-dir {}'
_CHECKPOINT = re.compile(r'(epoch|iter)_\d+\.pth')


@dataclass(frozen=True)
class Run:
    """The work folder of a training or evaluation."""

    folder: Path

    @functools.cached_property
    def training(self) -> dict[str, Any]:
        """What `write_record` wrote at the start of the last training; empty if there is none."""
        return self._record(RECORD)

    @functools.cached_property
    def evaluation(self) -> dict[str, Any]:
        """What `write_metrics` wrote after the last evaluation; empty if there is none."""
        return self._record(METRICS)

    @functools.cached_property
    def config(self) -> Config | None:
        """The content of `config_file`."""
        path = self.config_file
        if path is None:
            return None
        try:
            return Config.fromfile(path, import_custom_modules=False)
        except Exception as error:  # a config is code: anything may go wrong in it
            raise UserError(f'cannot read config {path}: {error!r}') from error

    @property
    def config_file(self) -> Path | None:
        """The newest config of a training, or else of an evaluation, as it was written there."""
        return newest_config(self.folder) or newest_config(self.folder, test=True)

    @property
    def checkpoint(self) -> Path | None:
        """What was evaluated, or else the last checkpoint of the training."""
        name = self.evaluation.get('checkpoint') or _pointed(self.folder)
        return Path(name) if name else None

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

    def _record(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        if not path.is_file():
            return {}
        try:
            content = json.loads(path.read_bytes())
        except ValueError as error:
            raise UserError(f'{path} is no JSON: {error}; run it again') from error
        return content if isinstance(content, dict) else {}


def find_run(folder: str | os.PathLike[str]) -> Run:
    """The run of a work folder.

    Raises:
        UserError: It is not there.
    """
    return Run(Path(existing_run(folder)))


def candidates(work_dir: str | os.PathLike[str]) -> list[Path]:
    """Checkpoints of the last training in a folder, in the order to try them in.

    The one that ``last_checkpoint`` names comes first, then the others by time. The best
    checkpoints are not among them: they hold weights only.
    """
    folder = Path(work_dir)
    name = _pointed(folder)
    if name == '':  # a training began here and has not saved yet; what is there is older
        return []
    places = [Path(name), folder / Path(name).name] if name else []
    named = [path for path in places if path.is_file()][:1]
    found = [path for path in folder.glob('*.pth') if _CHECKPOINT.fullmatch(path.name)]
    found.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return named + [path for path in found if path.resolve() not in [p.resolve() for p in named]]


def last_checkpoint(work_dir: str | os.PathLike[str]) -> str:
    """Which checkpoint a training can go on from, as the end of a sentence."""
    name = _pointed(Path(work_dir))
    if not name:
        return 'no checkpoint had been written'
    return f'the last checkpoint is {name}, --resume goes on from it'


def _pointed(folder: Path) -> str | None:
    """What ``last_checkpoint`` names: nothing from the start of a training to its first one."""
    try:
        return (folder / POINTER).read_text().strip()
    except OSError:
        return None


def write_record(cfg: Config, **facts: Any) -> None:
    """Write ``run.json``: what is trained, on what, with which software and other facts."""
    data = {split: data_of(cfg, split) for split in ('train', 'val')}
    record = dict(config=cfg.filename, started=f'{datetime.now():%Y-%m-%d %H:%M:%S}')
    record |= dict(launcher=cfg.get('launcher', 'none'), **facts, data=data, software=software())
    _write(Path(cfg.work_dir) / RECORD, record)


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
    record |= dict(data=data, software=software(), metrics=metrics)
    return _write(Path(cfg.work_dir) / METRICS, record)


def _write(path: Path, record: Mapping[str, Any]) -> Path:
    return write(path, json.dumps(record, indent=2, default=float) + '\n')


def data_of(config: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Where a complete config has the data of a split: 'train', 'val' or 'test'.

    Returns:
        ``annotations``, ``images``, ``classes`` and ``exif_turns`` (whether images are loaded as
        their EXIF data turn them), as far as they are known: nothing of datasets that are put
        together from several, and no classes where the dataset class has its own.
    """
    loader = config.get(f'{split}_dataloader')
    if not loader:
        return {}
    dataset = loader['dataset']
    while 'dataset' in dataset:  # a wrapper, such as RepeatDataset
        dataset = dataset['dataset']
    if 'ann_file' not in dataset:
        return {}
    root = dataset.get('data_root') or ''
    prefix = (dataset.get('data_prefix') or {}).get('img', '')
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

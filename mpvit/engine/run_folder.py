"""What lies in the work folder of a run."""

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mpvit.datasets.check.expectations import settings_of
from mpvit.errors import UserError
from mpvit.evaluation.result_files import Results, read_results
from mpvit.files.paths import newest_config

DETECTIONS = 'detections.bbox.json'
_HOW_TO = 'evaluate first: python tools/test.py CONFIG CHECKPOINT --work-dir {}'


@dataclass(frozen=True)
class Run:
    """The work folder of a training or evaluation.

    Attributes:
        folder: The folder.
    """

    folder: Path

    @functools.cached_property
    def evaluation(self) -> dict[str, Any]:
        """What the last evaluation recorded in ``metrics.json``; empty if there is none."""
        path = self.folder / 'metrics.json'
        if not path.is_file():
            return {}
        try:
            content = json.loads(path.read_bytes())
        except ValueError as error:
            raise UserError(f'{path} is no JSON: {error}; evaluate again') from error
        return content if isinstance(content, dict) else {}

    @functools.cached_property
    def config(self) -> Config | None:
        """The config of the training, or else of the evaluation, as it was written there."""
        return self._config(test=False) or self._config(test=True)

    @property
    def config_file(self) -> Path | None:
        """The file of `config`."""
        return newest_config(self.folder) or newest_config(self.folder, test=True)

    @property
    def checkpoint(self) -> Path | None:
        """What was evaluated, or else the last checkpoint of the training."""
        named = self.evaluation.get('checkpoint')
        if named:
            return Path(named)
        try:
            last = (self.folder / 'last_checkpoint').read_text().strip()
        except OSError:
            return None
        return Path(last) if last else None  # it is empty until the first checkpoint

    def data(self, split: str = 'test') -> dict[str, Any]:
        """Where the data of a split are.

        Args:
            split: 'train', 'val' or 'test'.

        Returns:
            As `data_of`, as far as they are known; of an evaluation also ``detections``.
        """
        recorded = self.evaluation.get('data') if split == 'test' else None
        if isinstance(recorded, dict):
            return recorded
        config = self._config(test=True) if split == 'test' else None
        config = config or self.config
        return data_of(config, split) if config is not None else {}

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
        if not annotations:
            raise UserError(
                f'{self.folder} does not say what was evaluated (metrics.json); name the files: '
                f'--ann FILE --images DIR --detections {detections}'
            )
        if not Path(annotations).is_file():
            raise UserError(
                f'annotation file {annotations} of {self.folder} not found; name where it is now: '
                f'--ann FILE --images DIR --detections {detections}'
            )
        return read_results(
            annotations,
            detections,
            data.get('images') or '',
            data.get('classes'),
            data.get('exif_turns'),
        )

    def _config(self, test: bool) -> Config | None:
        path = newest_config(self.folder, test=test)
        if path is None:
            return None
        try:
            return Config.fromfile(path, import_custom_modules=False)
        except Exception as error:  # a config is code: anything may go wrong in it
            raise UserError(f'cannot read config {path}: {error!r}') from error


def find_run(folder: str | os.PathLike[str]) -> Run:
    """The run of a work folder.

    Args:
        folder: The folder.

    Raises:
        UserError: It is not there.
    """
    path = Path(folder)
    if path.is_file():
        raise UserError(f'{path} is a file; name the work folder of a run')
    if not path.is_dir():
        raise UserError(f'work folder {path} not found')
    return Run(path)


def data_of(config: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Where a config has the data of a split.

    Args:
        config: Complete config.
        split: 'train', 'val' or 'test'.

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

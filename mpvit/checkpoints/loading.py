"""mmengine's reading of checkpoints, made safe and opened to official files.

`mpvit.register` puts `LOADERS` in the place of mmengine's for everything that its
`CheckpointLoader` can be given, and `CheckedPretrainedInit` in that of the initialisation
``dict(type='Pretrained', checkpoint=...)``.
"""

import os
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.logging import HistoryBuffer, print_log
from mmengine.model import PretrainedInit
from mmengine.model.weight_init import update_init_info
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import (
    get_deprecated_model_names,
    get_external_models,
    get_torchvision_models,
)
from torch import nn

from mpvit.checkpoints.compatibility import check_fit
from mpvit.checkpoints.conversion import Report, to_ours
from mpvit.checkpoints.formats import weights_of
from mpvit.checkpoints.reading import Allowed, guarded_getattr, read_checkpoint, trusted
from mpvit.errors import UserError

# what mmengine's own checkpoints hold besides arrays: the history of logged numbers
_STATISTICS = ('min', 'max', 'current', 'mean')
OWN_OBJECTS: list[Allowed] = [
    HistoryBuffer,
    (guarded_getattr(HistoryBuffer, _STATISTICS), 'builtins.getattr'),
]
_COUNTER = 'num_batches_tracked'


def read(
    path: str | os.PathLike[str], map_location: Any = 'cpu', sha256: str | None = None
) -> dict[str, Any]:
    """Read a checkpoint of ours, of mmdet, or an official one, as it is in the file.

    Args:
        path: File.
        map_location: Device for the tensors, as for `torch.load`.
        sha256: Expected sha256 in hex, or its beginning; None for no check.

    Raises:
        UserError: See `read_checkpoint`.
    """
    return read_checkpoint(path, map_location, sha256, allowed=OWN_OBJECTS)


def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Read a file; official checkpoints become ours.

    Args:
        filename: Path.
        map_location: Device for the tensors, as for `torch.load`.
    """
    checkpoint = read(filename, map_location)
    if not trusted():
        _drop_source(checkpoint)
    converted = to_ours(checkpoint)
    if converted is None:
        if 'state_dict' not in checkpoint and isinstance(checkpoint.get('model'), dict):
            checkpoint['state_dict'] = weights_of(checkpoint)  # the only place mmengine looks in
        return checkpoint
    ours, report = converted
    log_report(report)
    return ours


def load_from_http(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Download a file once, then read it as a local one.

    Args:
        filename: URL.
        map_location: Device for the tensors, as for `torch.load`.
    """
    rank, world_size = get_dist_info()
    try:
        path, fresh = _download(filename) if rank == 0 else (None, False)
    finally:
        barrier()
    if path is None:
        path, fresh = _download(filename)
    try:
        return load_from_local(str(path), map_location)
    except UserError as error:
        if fresh and world_size == 1:  # so that the next attempt downloads it again
            path.unlink(missing_ok=True)
        raise UserError(f'{error} (downloaded from {filename})') from error


def load_from_torchvision(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Download one of torchvision's models.

    Args:
        filename: ``torchvision://`` and the model's name.
        map_location: Device for the tensors, as for `torch.load`.
    """
    return load_from_http(_known(filename, get_torchvision_models()), map_location)


def load_from_openmmlab(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Download one of OpenMMLab's models.

    Args:
        filename: ``open-mmlab://`` and the model's name.
        map_location: Device for the tensors, as for `torch.load`.
    """
    scheme, _, name = filename.partition('://')
    name = get_deprecated_model_names().get(name, name)
    url = _known(f'{scheme}://{name}', get_external_models())
    return CheckpointLoader.load_checkpoint(url, map_location)


def load_from_elsewhere(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Refuse what mmengine would read by itself, and not safely."""
    raise UserError(f'checkpoint {filename}: download the file and name its path instead')


#: What reads a checkpoint, by the beginnings of its name (regular expressions).
LOADERS = {
    ('',): load_from_local,
    ('http://', 'https://'): load_from_http,
    ('modelzoo://', 'torchvision://'): load_from_torchvision,
    ('open-mmlab://', 'openmmlab://'): load_from_openmmlab,
    ('mmcls://', 'pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://'): load_from_elsewhere,
}


class CheckedPretrainedInit(PretrainedInit):
    """mmengine's initialisation from a checkpoint, for files that fit the module only.

    mmengine's own loads what matches and leaves the rest random. Stages of MPViT or CoaT that
    the module does not build may be in the file.
    """

    def __call__(self, module: nn.Module) -> None:
        """Load the weights into a module.

        Args:
            module: What to initialise.

        Raises:
            UserError: The file cannot be read or does not fit.
        """
        checkpoint = CheckpointLoader.load_checkpoint(self.checkpoint, self.map_location)
        weights = weights_of(checkpoint)
        if self.prefix is not None:
            prefix = self.prefix.removesuffix('.') + '.'
            weights = {
                n.removeprefix(prefix): v for n, v in weights.items() if n.startswith(prefix)
            }
        expected = module.state_dict()
        weights = {n: v for n, v in weights.items() if n in expected or not _unbuilt(n, expected)}
        counters = {n: v for n, v in expected.items() if n.endswith(_COUNTER)}
        weights = {**counters, **weights}
        kind = type(module).__name__
        try:
            check_fit(weights, expected, advice='init_cfg needs weights of exactly this module')
        except UserError as error:
            hint = '; for the backbone of a detector add prefix="backbone."'
            detector = self.prefix is None and any(n.startswith('backbone.') for n in weights)
            raise UserError(
                f'init_cfg of {kind}, {self.checkpoint}: {error}{hint if detector else ""}'
            ) from error
        module.load_state_dict(weights, strict=True)
        print_log(f'{kind} initialised from {self.checkpoint}', logger='current')
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=self._get_init_info())


def log_report(report: Report) -> None:
    """Write what a conversion did into the log.

    Args:
        report: Of the conversion.
    """
    for line in report.lines():
        print_log(line, logger='current')


def _drop_source(checkpoint: dict[str, Any]) -> None:
    """Take out the config that mmengine stores as source code.

    Its inferencers execute it where they are given no other, and its resuming did of old.
    """
    hub = checkpoint.get('message_hub')
    hub = hub if isinstance(hub, dict) else {}
    for holder in (checkpoint.get('meta'), hub.get('runtime_info'), hub.get('resumed_keys')):
        if isinstance(holder, dict):
            for key in ('cfg', 'config'):
                holder.pop(key, None)


def _unbuilt(name: str, expected: dict[str, Any]) -> bool:
    """Whether a tensor is of a stage after the last that a module has."""
    stage, number, _ = (*name.split('.', 2), '', '')[:3]
    return (
        stage == 'stages'
        and any(other.startswith('stages.0.') for other in expected)
        and not any(other.startswith(f'stages.{number}.') for other in expected)
    )


def _known(filename: str, urls: dict[str, str]) -> str:
    name = filename.partition('://')[2]
    if name not in urls:
        raise UserError(f'checkpoint {filename}: there is no model {name}')
    return urls[name]


def _download(url: str) -> tuple[Path, bool]:
    """Path of the downloaded file, and whether it was downloaded just now."""
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    path = folder / Path(urlparse(url).path).name
    if path.is_file():
        return path, False
    folder.mkdir(parents=True, exist_ok=True)
    print_log(f'downloading {url} to {path}', logger='current')
    try:
        torch.hub.download_url_to_file(url, str(path), progress=False)
    except (OSError, ValueError) as error:
        reason = getattr(error, 'reason', error)
        code = f'HTTP {error.code} ' if isinstance(error, HTTPError) else ''
        dead = 'the link is dead' if code or not isinstance(error, URLError) else 'no connection'
        raise UserError(
            f'checkpoint {url} cannot be downloaded ({code}{reason}): {dead}? '
            'docs/checkpoints.md says what to do'
        ) from error
    return path, True

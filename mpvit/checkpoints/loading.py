"""What mmengine reads files by, made to refuse code and opened to official checkpoints.

mmengine's readers of checkpoints fall back to an unsafe one with only a warning, its YAML reader
builds any Python object that a file names, and pickles run whatever they hold. `mpvit.register`
puts what stands here in their place. Configs remain code.
"""

import functools
import os
import tempfile
from collections.abc import Callable, Iterable
from typing import IO, Any

import mmengine.runner.checkpoint as mmengines
from mmengine.dist import barrier, get_rank
from mmengine.fileio.backends import HTTPBackend, LocalBackend
from mmengine.fileio.handlers import pickle_handler, yaml_handler
from mmengine.logging import print_log
from mmengine.model import PretrainedInit
from mmengine.model.weight_init import update_init_info
from mmengine.runner import CheckpointLoader
from torch import nn

from mpvit.checkpoints import published
from mpvit.checkpoints.compatibility import check_fit
from mpvit.checkpoints.conversion import to_ours
from mpvit.checkpoints.formats import weights_of
from mpvit.checkpoints.published import cached, entry_of
from mpvit.checkpoints.reading import read
from mpvit.errors import UserError
from mpvit.files.download import DownloadError, fetch
from mpvit.files.untrusted import (
    JSON_BYTES,
    TRUST_VARIABLE,
    parse_yaml,
    read_untrusted,
    trusted,
)

#: Where the config of a training is in the meta of a checkpoint that was loaded.
SOURCE = 'cfg_text'


def load(
    file: str | os.PathLike[str] | IO[bytes], map_location: Any = None, weights_only: Any = None
) -> dict[str, Any]:
    """Read a checkpoint without executing anything in it, in the place of mmengine's function.

    Args:
        file: Path, or an open file.
        map_location: Device for the tensors, as for `torch.load`.
        weights_only: Ignored: it is always True.

    Raises:
        UserError: See `mpvit.checkpoints.reading.read`.
    """
    if isinstance(file, (str, os.PathLike)):
        return read(file, map_location)
    with tempfile.NamedTemporaryFile(suffix='.pth') as copy:
        copy.write(file.read())
        copy.flush()
        return read(copy.name, map_location)


def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Read a file as `read` does; official checkpoints become ours."""
    checkpoint = read(filename, map_location)
    if not trusted():
        _drop_source(checkpoint)
    converted = to_ours(checkpoint)
    if converted is None:
        if 'state_dict' not in checkpoint and isinstance(checkpoint.get('model'), dict):
            checkpoint['state_dict'] = weights_of(checkpoint)  # the only place mmengine looks in
        return checkpoint
    ours, report = converted
    for line in report.lines():
        print_log(line, logger='current')
    return ours


def load_url(
    url: str, model_dir: str | None = None, map_location: Any = None, **kwargs: Any
) -> dict[str, Any]:
    """Download a file once, then read it as a local one, in the place of mmengine's function.

    Args:
        url: Its address.
        model_dir: Ignored: downloads are kept where torch keeps them, by their whole address.
        map_location: Device for the tensors, as for `torch.load`.
        **kwargs: Ignored.

    Raises:
        UserError: It cannot be downloaded or read.
    """
    try:
        return load_from_local(str(cached(url)), map_location)
    except DownloadError as error:
        _release_others()
        raise UserError(f'{error}; docs/checkpoints.md says what to do') from error
    except Exception:
        _release_others()
        raise


def load_published(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Read an entry of `mpvit.checkpoints.published`, ``mpvit://NAME``, downloaded if need be."""
    return load_from_local(str(published.fetch(entry_of(filename))), map_location)


def load_from_elsewhere(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Refuse what mmengine would read by itself, and not safely."""
    raise UserError(f'checkpoint {filename}: download the file and name its path instead')


def _of_known_models(loader: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """One of mmengine's loaders by name of a model, with an error for the user."""

    @functools.wraps(loader)
    def load(filename: str, map_location: Any = None) -> dict[str, Any]:
        try:
            return loader(filename, map_location)
        except KeyError as error:
            name = error.args[0]
            raise UserError(f'checkpoint {filename}: there is no model {name}') from error

    return load


#: What reads a checkpoint, by the beginnings of its name (regular expressions). Those of mmengine
#: end in `load` and `load_url`.
LOADERS = {
    ('',): load_from_local,
    (published.PREFIX,): load_published,
    ('modelzoo://', 'torchvision://'): _of_known_models(mmengines.load_from_torchvision),
    ('open-mmlab://', 'openmmlab://'): _of_known_models(mmengines.load_from_openmmlab),
    ('mmcls://', 'pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://'): load_from_elsewhere,
}


class CheckedPretrainedInit(PretrainedInit):
    """mmengine's initialisation from a checkpoint, for files that fit the module only.

    mmengine's own loads what matches and leaves the rest random. Of a detector or a classifier the
    backbone is taken, unless ``prefix`` names another part. Stages of MPViT or CoaT that
    the module does not build may be in the file, and of a classifier its backbone is taken.
    """

    def __call__(self, module: nn.Module) -> None:
        """Load the weights into a module.

        Raises:
            UserError: The file cannot be read or does not fit.
        """
        checkpoint = CheckpointLoader.load_checkpoint(self.checkpoint, self.map_location)
        weights, expected = weights_of(checkpoint), module.state_dict()
        prefix = (self.prefix or '').removesuffix('.')
        if self.prefix is None and _has(weights, 'backbone.') and not _has(expected, 'backbone.'):
            prefix = 'backbone'  # of a whole detector or classifier
        if prefix:
            weights = {
                name.removeprefix(f'{prefix}.'): value
                for name, value in weights.items()
                if name.startswith(f'{prefix}.')
            }
        weights = {n: v for n, v in weights.items() if n in expected or not _unbuilt(n, expected)}
        counters = {n: v for n, v in expected.items() if n.endswith('num_batches_tracked')}
        weights = {**counters, **weights}
        kind = type(module).__name__
        try:
            check_fit(weights, expected, advice='init_cfg needs weights of exactly this module')
        except UserError as error:
            raise UserError(f'init_cfg of {kind}, {self.checkpoint}: {error}') from error
        module.load_state_dict(weights, strict=True)
        print_log(f'{kind} initialised from {self.checkpoint}', logger='current')
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=self._get_init_info())


def _has(names: Iterable[str], beginning: str) -> bool:
    return any(name.startswith(beginning) for name in names)


def _release_others() -> None:
    """Meet the other processes where mmengine lets them wait; they go on and fail likewise."""
    if get_rank() == 0:
        barrier()


class WriteOnlyPickle(pickle_handler.PickleHandler):
    """mmengine's handler of pickles, which it writes but reads for nobody who does not ask."""

    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        """Refuse to read a pickle.

        Raises:
            UserError: Unless the user trusts files.
        """
        if trusted():
            return super().load_from_fileobj(file, **kwargs)
        name = getattr(file, 'name', 'the file')
        raise UserError(
            f'{name} is a pickle, which could execute code; use JSON. If you trust whoever made '
            f'it, set {TRUST_VARIABLE}=1'
        )


class SafeYaml(yaml_handler.YamlHandler):
    """mmengine's handler of YAML, with the loader that builds plain values only."""

    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        """Read plain values; a loader named in ``kwargs`` is not used.

        Raises:
            ValueError: See `parse_yaml`.
        """
        return parse_yaml(file.read())


class RegularFiles(LocalBackend):
    """mmengine's reader of local files, for regular ones that are not too large."""

    def get(self, filepath: str | os.PathLike[str]) -> bytes:
        """The content; see `read_untrusted`."""
        return read_untrusted(filepath, JSON_BYTES)

    def get_text(self, filepath: str | os.PathLike[str], encoding: str = 'utf-8') -> str:
        """The content as text; see `read_untrusted`."""
        text = self.get(filepath).decode(encoding)
        return text.replace('\r\n', '\n').replace('\r', '\n')  # as of a file opened as text


class LimitedHttp(HTTPBackend):
    """mmengine's reader of addresses, with limits of bytes and time."""

    def get(self, filepath: str) -> bytes:
        """The content; see `fetch`."""
        with tempfile.TemporaryFile() as file:
            fetch(filepath, file)
            file.seek(0)
            return file.read()

    def get_text(self, filepath: str, encoding: str = 'utf-8') -> str:
        """The content as text; see `fetch`."""
        return self.get(filepath).decode(encoding)


def _drop_source(checkpoint: dict[str, Any]) -> None:
    """Take out the config that mmengine stores as source code, or put it where nobody looks.

    Its inferencers execute it where they are given no other, and its resuming did of old. It is
    data to us (`mpvit.config.literals`).
    """
    meta = checkpoint.get('meta')
    if isinstance(meta, dict) and isinstance(meta.get('cfg'), str):
        meta[SOURCE] = meta['cfg']
    hub = checkpoint.get('message_hub')
    hub = hub if isinstance(hub, dict) else {}
    for holder in (meta, hub.get('runtime_info'), hub.get('resumed_keys')):
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

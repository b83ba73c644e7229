"""What mmengine would execute code from, made to refuse; `mpvit.register` puts it in place.

Its readers of checkpoints fall back to an unsafe one with only a warning, its YAML reader builds
any Python object that a file names, and pickles run whatever they hold. `mpvit.checkpoints.loading`
replaces the loaders by scheme; here are the functions below them. Configs remain code.
"""

import os
import tempfile
from typing import IO, Any

from mmengine.fileio.handlers import pickle_handler, yaml_handler

from mpvit.checkpoints.loading import load_from_http, read
from mpvit.checkpoints.reading import TRUST_VARIABLE, trusted
from mpvit.errors import UserError


def load(
    file: str | os.PathLike[str] | IO[bytes], map_location: Any = None, weights_only: Any = None
) -> dict[str, Any]:
    """Read a checkpoint without executing anything in it, in the place of mmengine's function.

    Args:
        file: Path, or an open file.
        map_location: Device for the tensors, as for `torch.load`.
        weights_only: Ignored: it is always True.

    Raises:
        UserError: See `mpvit.checkpoints.reading.read_checkpoint`.
    """
    if isinstance(file, (str, os.PathLike)):
        return read(file, map_location)
    with tempfile.NamedTemporaryFile(suffix='.pth') as copy:
        copy.write(file.read())
        copy.flush()
        return read(copy.name, map_location)


def load_url(
    url: str, model_dir: str | None = None, map_location: Any = None, **kwargs: Any
) -> dict[str, Any]:
    """Download a checkpoint and read it as `load` does, in the place of mmengine's function.

    Args:
        url: Its address.
        model_dir: Ignored: downloads are kept where torch keeps them.
        map_location: Device for the tensors, as for `torch.load`.
        **kwargs: Ignored.
    """
    return load_from_http(url, map_location)


class WriteOnlyPickle(pickle_handler.PickleHandler):
    """mmengine's handler of pickles, which it writes but reads for nobody who does not ask."""

    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        """Refuse to read a pickle.

        Args:
            file: Open file.
            **kwargs: As for mmengine's handler.

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
        """Read plain values.

        Args:
            file: Open file.
            **kwargs: As for mmengine's handler; a loader named there is not used.
        """
        return yaml_handler.yaml.safe_load(file)

"""Images that cannot be read: why, and how many of them a training has left out."""

import logging
import os
from collections.abc import Sequence
from typing import Any

import torch
from mmcv.transforms import TRANSFORMS, LoadImageFromFile
from mmengine.logging import print_log

from mpvit.errors import UserError
from mpvit.files.paths import is_address


class SkippedImages:
    """Counts the images left out of a dataset, up to a limit, with all workers of a dataloader.

    An image counts once, however often it is drawn.
    """

    def __init__(self, images: int, limit: int) -> None:
        self.limit = limit
        # one place for each image: workers that write at the same time do not lose a count
        self._marks = torch.zeros(images, dtype=torch.bool).share_memory_()

    @property
    def count(self) -> int:
        """Number of different images left out so far."""
        return int(self._marks.sum())

    def add(self, index: int, path: str, reason: str) -> bool:
        """Leave out an image, with a warning the first time; whether the limit still holds."""
        if self._marks[index]:
            return True
        self._marks[index] = True
        within = self.count <= self.limit
        if within:
            print_log(
                f'image {path} cannot be read ({reason}), another one takes its place: '
                f'{self.count} of at most {self.limit}',
                logger='current',
                level=logging.WARNING,
            )
        return within


def why_unreadable(path: str, transforms: Sequence[Any]) -> str | None:
    """Why an image cannot be read, or None if it can and the error came from elsewhere.

    The step of the pipeline that reads images is tried again.
    """
    loaders = (step for step in transforms if isinstance(step, LoadImageFromFile))
    loader = next(loaders, None) or TRANSFORMS.build(dict(type='LoadImageFromFile'))
    try:
        loader.transform(dict(img_path=path))
    except FileNotFoundError:
        return 'it does not exist'
    except PermissionError:
        return 'no permission'
    except Exception as error:  # each format has errors of its own
        if os.path.isfile(path) and os.path.getsize(path) == 0:
            return 'it is empty'
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        text = str(error).replace(path, '').strip(' :')
        return f'truncated, or no image: {type(error).__name__}' + (f', {text}' if text else '')
    return None


def check_folder(path: str | None) -> None:
    """End the run if a local folder that was there at its start is gone.

    Raises:
        UserError: It does not exist any more.
    """
    if not path or is_address(path):
        return
    try:
        os.stat(path)
    except PermissionError:
        return
    except OSError as error:  # also a network drive that does not answer
        raise UserError(
            f'data folder {path} is gone ({error.strerror}): it was there when the run started; '
            'mount or restore it and go on with --resume',
            every_rank=True,
        ) from error

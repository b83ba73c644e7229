"""Classification for pretraining: mmpretrain made importable, and a toy in the place of ImageNet.

Configs of classifiers name this module in ``custom_imports``, after `mpvit.register`. Dataset,
augmentation, classifier and metric are mmpretrain's (the extra ``pretrain``).
"""

import contextlib
import importlib
import io
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from PIL import Image

from mpvit.datasets.transforms import LoadImageFromFile
from mpvit.errors import UserError, optional
from mpvit.files.writing import NotWritten, whole_folder

# Needs transformers before version 5, and nothing here needs it.
_MULTIMODAL = 'mmpretrain.models.multimodal'
_SPLITS = ('train', 'val')
_DIGITS = 10


def import_mmpretrain() -> None:
    """Import what registers mmpretrain's modules, all but those of multimodal models.

    Raises:
        UserError: It is not installed.
    """
    absent = sys.modules.setdefault(_MULTIMODAL, ModuleType(_MULTIMODAL))
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # a note on an optional package
            optional('mmpretrain', 'classifiers', 'pretrain')
            for part in ('datasets', 'engine', 'evaluation', 'models'):
                importlib.import_module(f'mmpretrain.{part}')
        registry = importlib.import_module('mmpretrain.registry')
        registry.TRANSFORMS.register_module(module=LoadImageFromFile, force=True)
    finally:
        if not hasattr(absent, '__file__'):  # whoever wants it may try
            sys.modules.pop(_MULTIMODAL)


def write_digits(root: str | os.PathLike[str]) -> Path:
    """Write scikit-learn's handwritten digits as a folder of images, unless it is there.

    They lie as ImageNet's do, ``train/7/0012.png``: 8 x 8 pixels, ink white on black. Every fifth
    one is in ``val``. The folder appears in one step when it is complete.

    Args:
        root: Folder to write, with ``train`` and ``val``.

    Returns:
        ``root``.

    Raises:
        UserError: The folder holds something else, or scikit-learn is not installed.
    """
    root = Path(root)
    if _is_complete(root):
        return root
    if root.exists() and any(root.iterdir()):
        raise UserError(f'{root} holds other files than digits; name another folder')
    digits = optional('sklearn.datasets', 'the digits', 'demo').load_digits()
    pixels = (digits.images * (255 / 16)).round().astype(np.uint8)  # (1797, 8, 8)
    try:
        with whole_folder(root) as work:
            for number, (image, label) in enumerate(zip(pixels, digits.target, strict=True)):
                folder = work / _SPLITS[number % 5 == 0] / str(label)
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(folder / f'{number:04d}.png')
    except NotWritten:
        if not _is_complete(root):  # another process may have been faster
            raise
    return root


def _is_complete(root: Path) -> bool:
    return all((root / split / str(_DIGITS - 1)).is_dir() for split in _SPLITS)


@DATASETS.register_module()
class DigitsDataset(BaseDataset):
    """Handwritten digits to classify, written first where they are missing (`write_digits`).

    Args:
        data_root: Folder of the dataset.
        split: ``train`` or ``val``.
        draw: Whether missing files are written.
        **options: As for mmengine's `BaseDataset`.
    """

    METAINFO = dict(classes=tuple(map(str, range(_DIGITS))))

    def __init__(self, data_root: str, split: str, draw: bool = True, **options: Any) -> None:
        if draw:
            write_digits(data_root)
        options.setdefault('serialize_data', False)  # so few need not be shared by workers
        super().__init__(data_root=data_root, data_prefix=dict(img_path=split), **options)

    def load_data_list(self) -> list[dict[str, Any]]:
        """A record an image: ``img_path`` and ``gt_label`` from 0 to 9, in the order of names."""
        paths = sorted(Path(self.data_prefix['img_path']).glob('*/*.png'))
        return [dict(img_path=str(path), gt_label=int(path.parent.name)) for path in paths]


import_mmpretrain()

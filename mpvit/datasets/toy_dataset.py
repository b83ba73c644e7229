"""The toy dataset as mmdet sees it."""

from typing import Any, ClassVar

from mmdet.registry import DATASETS

from mpvit.datasets.coco import OfficialCocoDataset
from mpvit.datasets.toy import CLASSES, PALETTE, ToySpec, write_toy_dataset


@DATASETS.register_module()
class ToyDataset(OfficialCocoDataset):
    """A `CocoDataset` that draws its files first where they are missing.

    Args:
        data_root: Folder of the dataset; written by `write_toy_dataset` when not there.
        spec: Fields of `ToySpec`, what to draw; None for its defaults.
        **kwargs: As for `CocoDataset`.
    """

    METAINFO: ClassVar[dict[str, Any]] = dict(classes=CLASSES, palette=PALETTE)

    def __init__(
        self, *args: Any, data_root: str, spec: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        write_toy_dataset(data_root, ToySpec(**(spec or {})))
        super().__init__(*args, data_root=data_root, **kwargs)

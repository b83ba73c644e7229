"""What a config says that a check of its dataset needs to know."""

from collections.abc import Mapping
from typing import Any, TypedDict

from mpvit.datasets.check.scales import Scales


class Settings(TypedDict):
    """Arguments of `check_dataset`."""

    classes: tuple[str, ...] | None
    scales: Scales | None
    exif_turns: bool


def settings_of(dataset: Mapping[str, Any]) -> Settings:
    """Take the settings from the config of a dataset.

    Args:
        dataset: A dataset as in a config, such as ``train_dataloader.dataset``, without wrappers.

    Returns:
        Arguments of `check_dataset`. Classes are None where the config leaves them to the class
        of the dataset, scales where no step of the pipeline limits both sides.
    """
    classes = (dataset.get('metainfo') or {}).get('classes')
    pipeline = dataset.get('pipeline') or []
    return Settings(
        classes=None if classes is None else tuple(classes),
        scales=Scales.of_pipeline(pipeline),
        exif_turns=any(_turns(step) for step in pipeline),
    )


def _turns(step: Mapping[str, Any]) -> bool:
    """Whether a step loads images as their EXIF data turn them, which is mmcv's default."""
    loads = str(step.get('type', '')).startswith('LoadImageFrom')
    return loads and step.get('color_type', 'color') in ('color', 'grayscale')

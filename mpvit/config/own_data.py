"""A config made to train and evaluate on a dataset that was found in a folder."""

import colorsys
import os
from collections.abc import Callable, Sequence
from typing import Any

from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

from mpvit.config.reading import evaluators, load_config, parse_options, refuse_classifier
from mpvit.config.stored import config_name
from mpvit.datasets.annotations import Split
from mpvit.datasets.layout import Layout
from mpvit.datasets.palette import CLASSES, rgb
from mpvit.errors import UserError
from mpvit.models.backbone import output_channels

_GOLDEN_RATIO = 0.618034  # steps of it around the colour circle never come close to one another
_OF_THE_OLD_DATA = (
    'ann_file',
    'data_prefix',
    'data_root',
    'draw',
    'metainfo',
    'spec',
    'type',
)


def config_on(
    layout: Layout | None,
    path: str | os.PathLike[str],
    options: Sequence[str] = (),
    work_dir: str | None = None,
    edit: Callable[[Config], object] | None = None,
) -> tuple[Config, list[str]]:
    """Read a config and point it at a dataset, if one is given; overrides have the last word.

    ``edit`` changes the config before them.

    Returns:
        The config, and lines for the log that say what was done.

    Raises:
        UserError: See `load_config` and `use_dataset`.
    """
    if layout is None:
        return load_config(path, options, work_dir, edit), []

    def edit_all(config: Config) -> None:
        use_dataset(config, layout)
        if edit is not None:
            edit(config)

    config = load_config(path, options, work_dir, edit_all)
    line = None
    if 'model.neck.in_channels' not in parse_options(options):
        try:
            line = fit_neck(config)
        except Exception:
            pass  # a backbone that does not build; building the model says what is wrong
    return config, [layout.summary(), *([line] if line else [])]


def use_dataset(config: Config, layout: Layout) -> None:
    """Point a config at a dataset: files, classes, the size of the head, the evaluators.

    Pipelines, batch sizes and everything else stay as they are. Where the dataset has no test
    split, validation's is tested on.

    Raises:
        UserError: The config's model has no head whose number of classes could be set.
    """
    refuse_classifier(config)
    head = config.model.get('bbox_head')
    if not isinstance(head, dict):
        raise UserError(f'--data: model.bbox_head of {config_name(config)} is no single head')
    head['num_classes'] = len(layout.classes)
    metainfo = dict(classes=layout.classes, palette=palette(len(layout.classes)))
    splits = dict(layout.splits)
    if 'test' not in splits:
        splits['test'] = splits['val']
    for name, split in splits.items():
        loader = config.get(f'{name}_dataloader')
        if loader is not None:
            loader.dataset = _pointed_at(loader.dataset, _places(layout, split), metainfo)
        for evaluator in evaluators(config, name):
            if 'ann_file' in evaluator:
                evaluator['ann_file'] = str(split.ann_file)
    if 'data_root' in config:  # a variable of the file; what reads it means this
        config.data_root = _root(layout)


def fit_neck(config: Config) -> str | None:
    """Set the neck's input channels to what the backbone really gives.

    Returns:
        A line that says what was changed, or None.
    """
    neck = config.model.get('neck')
    if not isinstance(neck, dict) or neck.get('in_channels', 'auto') == 'auto':
        return None  # the detector asks the backbone
    given = backbone_channels(config)
    wanted = list(neck['in_channels'])
    if given == wanted:
        return None
    neck['in_channels'] = given
    return f'model.neck.in_channels: {given}, as the backbone has them, instead of {wanted}'


def backbone_channels(config: Config) -> list[int]:
    """Channels of the maps that a config's backbone gives, found by running it on a small image."""
    init_default_scope(config.get('default_scope', 'mmdet'))
    return output_channels(MODELS.build(config.model.backbone))


def palette(count: int) -> list[tuple[int, int, int]]:
    """Colours of classes, the first those of every picture, and all different; RGB in [0, 255]."""
    colours = [rgb(colour) for colour in CLASSES[:count]]
    for index in range(len(CLASSES), count):
        hue = index * _GOLDEN_RATIO % 1
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 1.0 - 0.25 * (index % 2))
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colours


def _pointed_at(
    dataset: ConfigDict, places: dict[str, Any], metainfo: dict[str, Any]
) -> ConfigDict:
    """The config of a dataset with other data; wrappers that repeat or balance it stay."""
    if dataset.get('datasets'):  # several one after the other; now there is one
        return _pointed_at(dataset.datasets[0], places, metainfo)
    if dataset.get('dataset'):
        return ConfigDict(dataset, dataset=_pointed_at(dataset.dataset, places, metainfo))
    kept = {key: value for key, value in dataset.items() if key not in _OF_THE_OLD_DATA}
    return ConfigDict(type='OfficialCocoDataset', **places, metainfo=metainfo, **kept)


def _places(layout: Layout, split: Split) -> dict[str, Any]:
    root = _root(layout)
    return dict(
        data_root=root,
        ann_file=_relative(split.ann_file, root),
        data_prefix=dict(img=_relative(split.images, root)),
    )


def _root(layout: Layout) -> str:
    return '' if layout.root is None else str(layout.root)


def _relative(path: str | os.PathLike[str], root: str) -> str:
    """A path relative to the dataset's folder, or where it lies elsewhere the whole of it."""
    if not root:
        return os.fspath(path)
    absolute, parent = os.path.abspath(path), os.path.abspath(root)
    inside = os.path.commonpath([absolute, parent]) == parent
    return os.path.relpath(absolute, parent) if inside else absolute

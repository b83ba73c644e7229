"""Looking at a dataset: what is annotated, and what the detector is fed."""

import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
import torch
from mmdet.datasets import CocoDataset, MultiImageMixDataset
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from numpy.typing import NDArray
from PIL import Image

from mpvit.config.own_data import use_dataset
from mpvit.config.reading import leaf_datasets, load_config, refuse_classifier
from mpvit.config.stored import config_name
from mpvit.datasets.annotations import read_annotations
from mpvit.datasets.data_files import DataFiles
from mpvit.datasets.palette import class_colour
from mpvit.datasets.table import Annotations, rows_of
from mpvit.engine.build import check_data
from mpvit.errors import UserError
from mpvit.files.paths import is_address
from mpvit.files.writing import write_picture
from mpvit.inference.detector import class_labels
from mpvit.inference.drawing import Box
from mpvit.inference.images import Pixels
from mpvit.visualization.sheets import boxed, reach, sheet
from mpvit.visualization.style import shortened

_ROWS = 4  # images of a sheet
_SIDE = 370  # pixels of a picture
_WIDTH = 42  # characters over a picture
_MARGIN = 0.25  # of the image, around it, for boxes that reach out
_FEW = 15  # boxes of an image that are all labelled; of more only those that are not tiny
_CLASSES = 24  # of the legend
_ODD, _UNKNOWN, _PADDING = '#e6194b', '#808080', '#ffffff'
_ODD_TEXT = 'not trained on as it is'
_LOADING = ('LoadImage', 'LoadAnnotations')


@dataclass(frozen=True)
class Annotation:
    """A box of a panel.

    Attributes:
        corners: ``(x1, y1, x2, y2)`` in pixels of the picture.
        label: Index of its class; -1 for none of the dataset's.
        note: What is special about it: 'crowd', 'left out', 'cut'; else empty.
    """

    corners: tuple[float, ...]
    label: int
    note: str = ''


@dataclass(frozen=True)
class Panel:
    """A picture of a sheet.

    Attributes:
        pixels: RGB, shape ``(H, W, 3)``; None for none.
        boxes: Boxes on it.
        title: Text over it.
        size: ``(width, height)`` of the part that is not padding; None for all of it.
    """

    pixels: Pixels | None
    boxes: Sequence[Annotation]
    title: str
    size: tuple[int, int] | None = None


def browse_dataset(
    config: str | os.PathLike[str],
    sheets: str | os.PathLike[str],
    *,
    data: DataFiles | None = None,
    split: str = 'train',
    count: int = 12,
    draws: int | None = None,
    classes: Sequence[str] = (),
    seed: int = 0,
    cfg_options: Sequence[str] = (),
) -> list[Path]:
    """Draw contact sheets: images as they are annotated, beside what the detector is fed.

    The same seed gives the same images, augmented in the same ways.

    Args:
        config: Config file.
        sheets: Folder for the sheets, made where it is not there; no file in it is written over.
        data: As for `mpvit.engine.train.train`.
        split: 'train' or 'val'.
        count: How many images.
        draws: How often each is sent through the pipeline; None for 3 in training and 1 in
            validation, where nothing is random.
        classes: Names of classes, one of which has to be in an image; none for any image.
        seed: Of the choice of images and of their augmentation.
        cfg_options: Overrides, ``key=value``.

    Returns:
        The files that were written.

    Raises:
        UserError: Config, data or arguments do not fit together, or a sheet exists.
    """
    taken = [name for name in _sheet_names(sheets, split, count) if name.exists()]
    if taken:
        raise UserError(f'{taken[0]} exists already; choose another folder with --out')
    layout = data.for_training() if data else None
    edit = partial(use_dataset, layout=layout) if layout else None
    cfg = load_config(config, cfg_options, edit=edit)
    refuse_classifier(cfg)
    if cfg.get(f'{split}_dataloader') is None:
        raise UserError(f'{config_name(cfg)} has no {split}_dataloader')
    check_data(cfg, split)
    sources = list(_sources(cfg, split))
    _check_place(Path(sheets), sources)
    names = tuple(sources[0].dataset.metainfo.get('classes') or ())
    labels = class_labels(classes, names, '--classes: the dataset')
    chosen = _choose(sources, count, {*labels}, seed)
    draws = draws or (3 if split == 'train' else 1)
    settings = cfg.model.get('module', cfg.model).data_preprocessor
    rows = []
    for source, index in chosen:
        samples = [source.sample(index, (seed, index, draw)) for draw in range(draws)]
        fed = [_fed_panel(sample, settings, split == 'train') for sample in samples]
        rows.append([source.raw_panel(index), *fed])
    return draw_sheets(rows, names, _sheet_names(sheets, split, len(rows)))


def _check_place(sheets: Path, sources: Sequence['_Source']) -> None:
    """Refuse a folder for sheets where they would become images of the dataset."""
    place = sheets.resolve()
    for source in sources:
        images = (source.dataset.data_prefix or {}).get('img')
        if images and not is_address(images) and place.is_relative_to(Path(images).resolve()):
            raise UserError(f'--out {sheets} is among the images of {images}; name another folder')


def draw_sheets(
    rows: Sequence[Sequence[Panel]], names: Sequence[str], targets: Sequence[Path]
) -> list[Path]:
    """Draw rows of pictures: for each image the annotated one and then what is made of it.

    Returns:
        The PNG files to write, as many as the rows need.
    """
    for page, target in enumerate(targets):
        shown = rows[page * _ROWS : (page + 1) * _ROWS]
        panels = [panel for row in shown for panel in row]
        pictures = [_drawn(panel, names) for panel in panels]
        columns = len(shown[0])
        title = 'annotated' if columns == 1 else 'annotated | as the detector is fed'
        captions = [panel.title for panel in panels]
        drawn = sheet(pictures, captions, columns, _SIDE, title, _legend(shown, names))
        write_picture(target, drawn)
    return list(targets)


def _sheet_names(folder: str | os.PathLike[str], split: str, count: int) -> list[Path]:
    """Files of the sheets for a number of images."""
    return [Path(folder) / f'{split}_{page + 1:02d}.png' for page in range(-(-count // _ROWS))]


def _legend(rows: Sequence[Sequence[Panel]], names: Sequence[str]) -> list[tuple[str, str]]:
    """The classes of the annotated images with the number of their objects, most first."""
    counts = Counter(box.label for row in rows for box in row[0].boxes if box.label >= 0)
    legend = [
        (f'{names[label]} ({count})', class_colour(label))
        for label, count in counts.most_common(_CLASSES)
    ]
    odd = any(box.note for row in rows for panel in row for box in panel.boxes)
    return [*legend, *([(_ODD_TEXT, _ODD)] if odd else [])]


def _drawn(panel: Panel, names: Sequence[str]) -> Image.Image | None:
    if panel.pixels is None:
        return None
    height, width = panel.pixels.shape[:2]
    few = len(panel.boxes) <= _FEW
    boxes = []
    if panel.size and panel.size != (width, height):
        boxes.append(Box((0, 0, *panel.size), _PADDING, dashed=True))
    for box in panel.boxes:
        x1, y1, x2, y2 = box.corners
        is_tiny = (x2 - x1) * (y2 - y1) < 0.01 * width * height
        name = names[box.label] if box.label >= 0 else 'other class'
        colour = class_colour(box.label) if box.label >= 0 else _UNKNOWN
        if box.note:
            boxes.append(Box(box.corners, _ODD, f'{name}, {box.note}', dashed=True))
        else:
            boxes.append(Box(box.corners, colour, name if few or not is_tiny else ''))
    region = reach([box.corners for box in panel.boxes], (width, height), _MARGIN)
    return boxed(panel.pixels, boxes, _SIDE, region)


@dataclass
class _Source:
    """A dataset to look at.

    Attributes:
        dataset: The dataset.
        mixed: It again, within a wrapper that mixes images; None if there is none.
        truth: Its annotation file, with what it may not show; None for one of another format.
    """

    dataset: Any
    mixed: MultiImageMixDataset | None = None
    truth: Annotations | None = None

    def raw_panel(self, index: int) -> Panel:
        """The image with all of its annotations, also those that nothing is trained on."""
        info = self.dataset.get_data_info(index)
        load = self.dataset.pipeline.transforms[0]
        pixels = load(dict(img_path=info['img_path']))['img'][..., ::-1]
        boxes = [
            Annotation(
                tuple(i['bbox']), int(i['bbox_label']), 'crowd' if i.get('ignore_flag') else ''
            )
            for i in info['instances']
        ]
        if self.truth is not None:
            boxes += _odd_boxes(self.dataset, self.truth, info)
        height, width = pixels.shape[:2]
        name = Path(info['img_path']).name
        return Panel(
            pixels, boxes, f'{shortened(name, end=True)}, {width} x {height}\n{_count(boxes)}'
        )

    def sample(self, index: int, seed: Sequence[int]) -> dict[str, Any] | None:
        """The image and its boxes out of the pipeline; None if it leaves the image out."""
        state = int(np.random.SeedSequence(seed).generate_state(1)[0])
        random.seed(state)
        np.random.seed(state)
        torch.manual_seed(state)
        return self.dataset.prepare_data(index) if self.mixed is None else self.mixed[index]


def _fed_panel(sample: dict[str, Any] | None, settings: ConfigDict, training: bool) -> Panel:
    """An image and its boxes as they arrive in the detector, but with the pixels that they had.

    In training the data preprocessor, built from ``settings``, may augment batches, too.
    """
    if sample is None:
        return Panel(None, [], 'left out by the pipeline')
    preprocess = MODELS.build(settings)
    batch = dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']])
    fed = preprocess(batch, training=training)
    pixels, found = fed['inputs'][0], fed['data_samples'][0]
    if 'mean' in settings:
        pixels = pixels * preprocess.std + preprocess.mean
    array = pixels.clamp(0, 255).round().byte().permute(1, 2, 0).numpy()
    if not settings.get('bgr_to_rgb'):
        array = array[..., ::-1]
    boxes = []
    for name, note in (('gt_instances', ''), ('ignored_instances', 'crowd')):
        instances = found.get(name)
        if instances is not None:
            pairs = zip(instances.bboxes.tolist(), instances.labels.tolist(), strict=True)
            boxes += [Annotation(tuple(box), label, note) for box, label in pairs]
    height, width = found.img_shape[:2]
    title = f'{width} x {height}'
    if (height, width) != array.shape[:2]:
        title += f', padded to {array.shape[1]} x {array.shape[0]}'
    title += ', mirrored' if found.get('flip') else ''
    return Panel(array, boxes, f'{title}\n{_count(boxes)}', (width, height))


def _sources(cfg: Config, split: str) -> Iterator[_Source]:
    """The datasets of a split, read."""
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    outer = cfg[f'{split}_dataloader'].dataset
    for settings in leaf_datasets(outer):
        settings = ConfigDict(settings, lazy_init=True, pipeline=_in_order(settings.pipeline))
        source = _Source(DATASETS.build(settings))
        dataset = source.dataset
        _read(dataset)
        if isinstance(dataset, CocoDataset):
            file, backend = dataset.ann_file, dataset.backend_args
            source.truth = read_annotations(
                file, strict=False, unlabelled=True, backend_args=backend
            )
        if outer.type == 'MultiImageMixDataset':
            kept = {key: value for key, value in outer.items() if key not in ('type', 'dataset')}
            source.mixed = MultiImageMixDataset(dataset=source.dataset, **kept)
        yield source


def _read(dataset: Any) -> None:
    """Have a dataset read its files; one without images fails in mmengine's own words."""
    try:
        dataset.full_init()
        empty = not len(dataset)
    except ValueError:
        empty = not dataset.data_list
        if not empty:
            raise
    if empty:
        raise UserError(f'{dataset.ann_file}: filter_cfg and classes of the config leave no image')


def _in_order(pipeline: Sequence[ConfigDict]) -> list[ConfigDict]:
    """Boxes loaded with the image; tests load them last, for they compare in the original image."""
    first = [step for step in pipeline if step.type.startswith(_LOADING)]
    return [*first, *(step for step in pipeline if step not in first)]


def _odd_boxes(dataset: Any, truth: Annotations, info: dict[str, Any]) -> list[Annotation]:
    """Boxes of the file that the dataset left out or cut."""
    limits = np.array([info['width'], info['height']] * 2)
    used = np.array([i['bbox'] for i in info['instances']], dtype=float).reshape(-1, 4)

    def is_used(corners: NDArray[np.float64]) -> bool:
        return bool(np.isclose(corners, used, atol=1e-3).all(axis=1).any())

    odd = []
    (image,) = rows_of(truth.image_ids, np.array([info['img_id']])).tolist()
    for row in truth.rows_in(image) if image >= 0 else ():
        x, y, width, height = truth.boxes[row]
        corners = np.array([x, y, x + width, y + height])
        if np.isfinite(corners).all() and not is_used(corners):
            label = dataset.cat2label.get(truth.annotations[row]['category_id'], -1)
            note = 'cut' if is_used(corners.clip(0, limits)) else 'left out'
            odd.append(Annotation(tuple(corners.tolist()), label, note))
    return odd


def _choose(
    sources: Sequence[_Source], count: int, labels: set[int], seed: int
) -> list[tuple[_Source, int]]:
    """Images at random, in the order of the dataset; each once."""
    places = [(source, index) for source in sources for index in range(len(source.dataset))]

    def fits(place: int) -> bool:
        source, index = places[place]
        objects = source.dataset.get_data_info(index)['instances']
        return not labels or bool(labels & {entry['bbox_label'] for entry in objects})

    order = np.random.default_rng(seed).permutation(len(places)).tolist()
    chosen = list(islice(filter(fits, order), count))
    if not chosen:
        raise UserError('--classes: no image has an object of them')
    return [places[place] for place in sorted(chosen)]


def _count(boxes: Sequence[Annotation]) -> str:
    plain = sum(not box.note for box in boxes)
    if not boxes:
        return 'no objects'
    notes = [box.note for box in boxes if box.note]
    parts = [f'{count} {note}' for note, count in Counter(notes).items()]
    return '\n'.join(wrap(', '.join([f'{plain} object{"s" * (plain != 1)}', *parts]), _WIDTH))

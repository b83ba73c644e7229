"""A COCO-format dataset in one of the usual folder layouts: its splits and classes.

Standard library only.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mpvit.datasets.layout_search import Search, Split, listed
from mpvit.errors import UserError


@dataclass(frozen=True)
class DataFiles:
    """What a user names of a dataset in COCO format, to be taken instead of the config's own data.

    Attributes:
        data: Folder of the dataset.
        train_ann: Annotation file to train on, instead of the one in ``data``.
        val_ann: Annotation file to validate or test on, instead of the one in ``data``.
        train_images: Folder of the training images, where it is not found by itself.
        val_images: Folder of the images of ``val_ann``, where it is not found by itself.
    """

    data: str | None = None
    train_ann: str | None = None
    val_ann: str | None = None
    train_images: str | None = None
    val_images: str | None = None

    def for_training(self) -> 'Layout | None':
        """What `find_training_data` finds; None where nothing is named."""
        return find_training_data(**vars(self)) if any(vars(self).values()) else None

    def for_testing(self) -> 'Layout | None':
        """What `find_test_data` finds; None where nothing is named."""
        named = dict(data=self.data, val_ann=self.val_ann, val_images=self.val_images)
        return find_test_data(**named) if any(named.values()) else None


@dataclass(frozen=True)
class Layout:
    """A dataset whose parts fit together.

    Attributes:
        root: Folder of the dataset; None where only files were named.
        classes: Names of the classes in the order of the annotation files.
        left_out: A category that is no class: the name of the project in Roboflow's exports.
        splits: 'train', 'val' and 'test', those that were asked for and are there.
        test_left_out: Why a test split that is there cannot be used.
    """

    root: Path | None
    classes: tuple[str, ...]
    left_out: str | None
    splits: Mapping[str, Split]
    test_left_out: str | None = None

    def summary(self) -> str:
        """Images, folders and classes in one line."""
        parts = [
            f'{name} {split.image_count} images of {split.images} ({split.ann_file})'
            for name, split in self.splits.items()
        ]
        shown = listed(self.classes)
        line = f'Data: {"; ".join(parts)}; {len(self.classes)} classes: {shown}'
        if self.left_out:
            line += f'; category 0, {self.left_out!r}, is the name of the project and no class'
        if self.test_left_out:
            line += f'; the test split is left out ({self.test_left_out})'
        return line


def find_training_data(
    data: str | os.PathLike[str] | None,
    *,
    train_ann: str | None = None,
    val_ann: str | None = None,
    train_images: str | None = None,
    val_images: str | None = None,
) -> Layout:
    """Find the parts of a dataset to train on.

    Args:
        data: Folder of the dataset; None if both annotation files are named.
        train_ann: Annotation file to train on; None to look for it.
        val_ann: Annotation file to validate on; None to look for it.
        train_images: Folder of the training images; None to look for it.
        val_images: Folder of the validation images; None to look for it.

    Returns:
        The dataset with 'train', 'val' and, where there is one, 'test'.

    Raises:
        UserError: Something is missing or ambiguous, or the splits have different classes.
    """
    search = Search(data)
    files = {
        'train': search.annotation_file('train', train_ann),
        'val': search.annotation_file('val', val_ann),
    }
    folders = dict(train=train_images, val=val_images)
    splits = {name: search.split(name, path, folders[name]) for name, path in files.items()}
    layout = _checked(search.root, splits)
    try:
        test = search.test_split()
        return _checked(search.root, {**splits, 'test': test}) if test else layout
    except UserError as error:  # nothing to do with training
        return replace(layout, test_left_out=str(error))


def find_test_data(
    data: str | os.PathLike[str] | None,
    *,
    val_ann: str | None = None,
    val_images: str | None = None,
) -> Layout:
    """Find the part of a dataset to evaluate on.

    Args:
        data: Folder of the dataset; None if the annotation file is named.
        val_ann: Annotation file to evaluate on; None for the test split or else validation's.
        val_images: Folder of its images; None to look for it.

    Returns:
        The dataset with one split, named 'test'.

    Raises:
        UserError: Something is missing or ambiguous.
    """
    search = Search(data)
    split = None if val_ann else search.test_split(val_images)
    if split is None:
        split = search.split('val', search.annotation_file('val', val_ann), val_images)
    return _checked(search.root, dict(test=split))


def files_to_check(data: str | os.PathLike[str]) -> list[tuple[Path, Path]]:
    """Annotation file and image folder of training and, if there is one, validation data.

    Unlike `find_training_data` it takes files that are broken and images that are missing, for a
    check to tell what is wrong with them.

    Args:
        data: Folder of the dataset.

    Raises:
        UserError: There is no annotation file for training, or several.
    """
    search = Search(data)
    train, val = search.annotation_file('train', None), search.optional_file('val')
    files = dict(train=train) if val is None else dict(train=train, val=val)
    return [(path, search.probable_images(split, path)) for split, path in files.items()]


def test_files(data: str | os.PathLike[str]) -> list[Path]:
    """Annotation files for testing, also those without annotations.

    Args:
        data: Folder of the dataset.
    """
    return Search(data).test_files()


def _checked(root: Path | None, splits: Mapping[str, Split]) -> Layout:
    """Make sure that all splits have the same classes."""
    left_out = _project_name(splits.values())
    first, *others = splits
    lists = {name: _class_names(split, left_out) for name, split in splits.items()}
    for other in others:
        if lists[other] != lists[first]:
            raise UserError(
                f'{splits[first].ann_file} and {splits[other].ann_file} have different classes: '
                f'{_difference(first, lists[first], other, lists[other])}; both need the same '
                'categories in the same order'
            )
    return Layout(root, lists[first], left_out, splits)


def _project_name(splits: Iterable[Split]) -> str | None:
    """The unused category 0 that Roboflow puts first: the supercategory of all others."""
    names = set()
    for split in splits:
        first, *others = sorted(split.categories, key=lambda category: category['id'])
        is_parent = others and {c.get('supercategory') for c in others} == {first['name']}
        if not is_parent or first['id'] != 0 or 0 in split.used:
            return None
        names.add(first['name'])
    return names.pop() if len(names) == 1 else None


def _class_names(split: Split, left_out: str | None) -> tuple[str, ...]:
    names = [category['name'] for category in split.categories]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        ids = [category['id'] for category in split.categories if category['name'] == twice]
        raise UserError(
            f'annotation file {split.ann_file} has several categories named {twice!r} (ids '
            f'{", ".join(map(str, ids))}); rename all but one in the file'
        )
    return tuple(name for name in names if name != left_out)


def _difference(first: str, names: Sequence[str], other: str, other_names: Sequence[str]) -> str:
    parts = [
        f'only {split} has {listed(repr(name) for name in own if name not in theirs)}'
        for split, own, theirs in ((first, names, other_names), (other, other_names, names))
        if set(own) - set(theirs)
    ]
    if parts:
        return ', '.join(parts)
    number = next(i for i, name in enumerate(names) if name != other_names[i])
    return (
        f'in another order, the first difference is number {number + 1}, {names[number]!r} in '
        f'{first} and {other_names[number]!r} in {other}'
    )

"""A COCO-format dataset in one of the usual folder layouts: its files, splits and classes.

Splits are told by the names of files and folders (`train`, `instances_val2017`, `valid`, ...), and
the folder of the images by where the files that an annotation file names really are.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mpvit.datasets.annotations import Split, read_annotations
from mpvit.datasets.table import Annotations
from mpvit.errors import UserError, listed

SPLITS = ('train', 'val', 'test')
_WORDS = dict(
    train='train',
    training='train',
    val='val',
    valid='val',
    validation='val',
    minival='val',
    test='test',
    testing='test',
)
# what COCO ships beside its boxes
_OTHER_TASKS = ('captions', 'person_keypoints', 'panoptic', 'stuff', 'image_info')
_USUAL = ('instances', '_annotations.coco')  # beginnings that win where there are several files
_ANNOTATION_FOLDERS = ('annotations', 'annotation', 'labels')
_DEPTH = 3  # levels of folders that are looked into, the dataset's own among them
_SAMPLE = 8  # images that are looked for


@dataclass(frozen=True)
class Layout:
    """A dataset whose parts fit together.

    Attributes:
        root: Folder of the dataset; None where only files were named.
        classes: Names of the classes in the order of the annotation files.
        left_out: A category that is no class: the name of the project in Roboflow's exports.
        splits: 'train', 'val' and 'test', those that were asked for and are there.
        image_counts: Images of each split.
        test_left_out: Why a test split that is there cannot be used.
    """

    root: Path | None
    classes: tuple[str, ...]
    left_out: str | None
    splits: Mapping[str, Split]
    image_counts: Mapping[str, int]
    test_left_out: str | None = None

    def summary(self) -> str:
        """Images, folders and classes in one line."""
        parts = [
            f'{name} {self.image_counts[name]} images of {split.images} ({split.ann_file})'
            for name, split in self.splits.items()
        ]
        classes = f'{len(self.classes)} classes: {listed(self.classes)}'
        line = f'Data: {"; ".join(parts)}; {classes}'
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
    """Find the parts of a dataset to train on; the arguments are the attributes of `DataFiles`.

    Returns:
        The dataset with 'train', 'val' and, where there is one, 'test'.

    Raises:
        UserError: Something is missing or ambiguous, or the splits have different classes.
    """
    search = _Search(data)
    files = dict(
        train=search.annotation_file('train', train_ann), val=search.annotation_file('val', val_ann)
    )
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
    """Find the part of a dataset to evaluate on; the arguments are attributes of `DataFiles`.

    Unless ``val_ann`` is named it is the test split or else validation's.

    Returns:
        The dataset with one split, named 'test'.

    Raises:
        UserError: Something is missing or ambiguous.
    """
    search = _Search(data)
    split = None if val_ann else search.test_split(val_images)
    if split is None:
        split = search.split('val', search.annotation_file('val', val_ann), val_images)
    return _checked(search.root, dict(test=split))


def files_to_check(data: str | os.PathLike[str]) -> tuple[list[Split], list[Path]]:
    """What there is to check: training and, if there is one, validation data.

    Unlike `find_training_data` it takes files that are broken and images that are missing, for a
    check to tell what is wrong with them.

    Returns:
        The splits, and all annotation files for testing, also those without annotations.

    Raises:
        UserError: There is no annotation file for training, or several.
    """
    search = _Search(data)
    train, val = search.annotation_file('train', None), search.optional_file('val')
    files = dict(train=train) if val is None else dict(train=train, val=val)
    splits = [Split(path, search.probable_images(name, path)) for name, path in files.items()]
    return splits, [path for path in search.files if search.split_of(path) == 'test']


def _checked(root: Path | None, splits: Mapping[str, Split]) -> Layout:
    """Make sure that all splits have the same classes."""
    tables = {name: read_annotations(split.ann_file) for name, split in splits.items()}
    left_out = _project_name(tables.values())
    first, *others = splits
    lists = {name: _class_names(table, left_out) for name, table in tables.items()}
    for other in others:
        if lists[other] != lists[first]:
            raise UserError(
                f'{splits[first].ann_file} and {splits[other].ann_file} have different classes: '
                f'{_difference(first, lists[first], other, lists[other])}; both need the same '
                'categories in the same order'
            )
    counts = {name: len(table.images) for name, table in tables.items()}
    return Layout(root, lists[first], left_out, splits, counts)


def _project_name(tables: Iterable[Annotations]) -> str | None:
    """The unused category 0 that Roboflow puts first: the supercategory of all others."""
    names = set()
    for table in tables:
        first, *others = sorted(table.categories, key=lambda category: category['id'])
        is_parent = others and {c.get('supercategory') for c in others} == {first['name']}
        ids = table.category_ids.tolist()
        is_used = 0 in ids and bool((table.category_row == ids.index(0)).any())
        if not is_parent or first['id'] != 0 or is_used:
            return None
        names.add(first['name'])
    return names.pop() if len(names) == 1 else None


def _class_names(table: Annotations, left_out: str | None) -> tuple[str, ...]:
    twice = next((name for name, times in Counter(table.names).items() if times > 1), None)
    if twice is not None:
        ids = [category['id'] for category in table.categories if category['name'] == twice]
        raise UserError(
            f'annotation file {table.file} has several categories named {twice!r} (ids '
            f'{", ".join(map(str, ids))}); rename all but one in the file'
        )
    return tuple(name for name in table.names if name != left_out)


def _difference(first: str, names: Sequence[str], other: str, other_names: Sequence[str]) -> str:
    parts = []
    for split, own, theirs in ((first, names, other_names), (other, other_names, names)):
        alone = set(own) - set(theirs)
        if alone:
            parts.append(f'only {split} has {listed(repr(name) for name in own if name in alone)}')
    if parts:
        return ', '.join(parts)
    number = next(i for i, name in enumerate(names) if name != other_names[i])
    return (
        f'in another order, the first difference is number {number + 1}, {names[number]!r} in '
        f'{first} and {other_names[number]!r} in {other}'
    )


class _Search:
    """A dataset's folder, looked through once; None if all files are named."""

    def __init__(self, root: str | os.PathLike[str] | None) -> None:
        self.root = None if root is None else Path(root)
        self.folders, self.files = ([], []) if self.root is None else scan(self.root)

    def split_of(self, path: Path) -> str | None:
        """The split that a file or folder belongs to, by the nearest name that tells."""
        parts = path.relative_to(self.root).parts if self.root else path.parts
        return next((split for split in map(split_of, reversed(parts)) if split), None)

    def annotation_file(self, split: str, named: str | None) -> Path:
        """The annotation file of a split that is needed, looked for unless it is named."""
        path = Path(named) if named else self.optional_file(split)
        if path is None:
            raise UserError(self._nothing_found(split))
        if not path.is_file():
            raise UserError(f'--{split}-ann: there is no file {path}')
        return path

    def optional_file(self, split: str) -> Path | None:
        """The only annotation file of a split, if there is one."""
        found = [
            path
            for path in self.files
            if self.split_of(path) == split and not path.name.startswith(_OTHER_TASKS)
        ]
        found = [path for path in found if path.name.startswith(_USUAL)] or found
        if len(found) > 1:
            raise UserError(
                f'{self.root} has several annotation files for {split}: {listed(found)}; say '
                f'which with {_flag(split, "ann FILE")}, or move the others away'
            )
        return found[0] if found else None

    def test_split(self, images: str | None = None) -> Split | None:
        """The test split, if there is one with annotations."""
        path = self.optional_file('test')
        if path is None:
            return None
        split = self.split('test', path, images)
        return split if read_annotations(path, unlabelled=True).annotations else None

    def split(self, name: str, path: Path, images: str | None) -> Split:
        """A split whose annotation file is sound and whose images are there."""
        table = read_annotations(path, unlabelled=name == 'test')
        if not table.categories:
            raise UserError(f'annotation file {path} has no categories')
        return Split(path, self._image_folder(name, path, table, images))

    def probable_images(self, split: str, path: Path) -> Path:
        """Folder of the images of a file, or where that does not tell, what is named like it."""
        try:
            table = read_annotations(path, strict=False, unlabelled=True)
            return self._image_folder(split, path, table, None)
        except UserError:
            return next((f for f in self.folders if self.split_of(f) == split), path.parent)

    def _image_folder(self, split: str, path: Path, table: Annotations, named: str | None) -> Path:
        if not table.images:
            raise UserError(f'annotation file {path} lists no images')
        chosen = table.images[:: max(len(table.images) // _SAMPLE, 1)][:_SAMPLE]
        sample = [image['file_name'] for image in chosen]
        flag = _flag(split, 'images DIR')
        if named:
            if not _count_in(Path(named), sample):
                raise UserError(f'{flag} {named}: {sample[0]}, which {path} names, is not there')
            return Path(named)
        folders = {folder: self.split_of(folder) for folder in self.folders}
        if self.root is None or self.root.resolve() not in path.resolve().parents:
            in_folder = path.parent.name in _ANNOTATION_FOLDERS
            around = _Search(path.parent.parent if in_folder else path.parent)
            folders |= {folder: around.split_of(folder) for folder in around.folders}
        own = [folder for folder in folders if folders[folder] == split]
        rest = [folder for folder in folders if folders[folder] is None]
        for tier in (own, [path.parent], rest):
            counts = {folder: _count_in(folder, sample) for folder in tier}
            best = [folder for folder in tier if 0 < counts[folder] == max(counts.values())]
            if len(best) > 1:
                raise UserError(
                    f'the images of {path} are in several folders: {listed(best)}; say which '
                    f'with {flag}'
                )
            if best:
                return best[0]
        raise UserError(
            f'images of {path} not found: {sample[0]!r} is in none of {listed(folders)}; name '
            f'the folder with {flag}'
        )

    def _nothing_found(self, split: str) -> str:
        flag = _flag(split, 'ann FILE')
        if self.root is None:
            use = 'train' if split == 'train' else 'validate'
            return f'no data to {use} on; add --data DIR or {flag}'
        other = None if self.files else other_format(self.root)
        if other:
            return (
                f'{self.root} is in {other} format; convert it first: '
                f'mpvit convert_dataset {self.root} NEW_FOLDER'
            )
        files = listed(self.files) if self.files else 'no JSON file'
        if split == 'val' and self.optional_file('train'):
            return (
                f'{self.root} has no validation split (found {files}); move some of the images '
                'and their annotations into a file of their own, such as annotations/val.json, '
                f'or name one with {flag}'
            )
        return (
            f'{self.root} has no annotation file for {split}: looked for names such as '
            f'annotations/instances_{split}2017.json, annotations/{split}.json and '
            f'{split}/_annotations.coco.json, found {files}; name it with {flag}'
        )


def _flag(split: str, rest: str) -> str:
    """The flag that names a file or folder; test data is chosen when it is tested on."""
    return f'--val-{rest} of mpvit test' if split == 'test' else f'--{split}-{rest}'


def split_of(name: str) -> str | None:
    """The split that a file or folder is named after, by its name without the path."""
    found = {_WORDS[word] for word in re.findall('[a-z]+', name.lower()) if word in _WORDS}
    return found.pop() if len(found) == 1 else None


def other_format(root: Path) -> str | None:
    """Which format that is not COCO's a dataset is in: 'YOLO', 'Pascal VOC' or None."""
    if any(root.glob('*.yaml')) or any(root.glob('*.yml')):
        return 'YOLO'
    folders, _ = scan(root)
    for folder in folders:
        if any(folder.glob('*.xml')):
            return 'Pascal VOC'
        if 'labels' in folder.relative_to(root).parts and any(folder.glob('*.txt')):
            return 'YOLO'
    return None


def scan(
    root: Path, depth: int = _DEPTH, above: frozenset[tuple[int, int]] = frozenset()
) -> tuple[list[Path], list[Path]]:
    """Folders, the root among them, and JSON files, down to a few levels, by their names.

    A link back to one of the folders ``above``, known by device and inode, is left out.

    Raises:
        OSError: A folder cannot be read.
    """
    status = root.stat()
    here = status.st_dev, status.st_ino
    if here in above:
        return [], []
    folders, files = [root], []
    for entry in os.scandir(root) if depth else ():
        if entry.name.startswith('.'):
            continue
        if entry.name.endswith('.json'):
            files.append(Path(entry.path))
        elif entry.is_dir():
            below = scan(Path(entry.path), depth - 1, above | {here})
            folders += below[0]
            files += below[1]
    return sorted(folders), sorted(files)


def _count_in(folder: Path, names: Sequence[str]) -> int:
    found = 0
    for name in names:
        with suppress(OSError):  # a name that no file can have
            found += (folder / name).is_file()
    return found

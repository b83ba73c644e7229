"""Annotation files and images of a COCO-format dataset, looked for in its folder.

Standard library only. Splits are told by the names of files and folders (`train`,
`instances_val2017`, `valid`, ...), and the folder of the images by where the files that an
annotation file names really are.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpvit.errors import UserError

SPLITS = ('train', 'val', 'test')
_WORDS = {
    'train': 'train',
    'training': 'train',
    'val': 'val',
    'valid': 'val',
    'validation': 'val',
    'minival': 'val',
    'test': 'test',
    'testing': 'test',
}
# what COCO ships beside its boxes
_OTHER_TASKS = ('captions', 'person_keypoints', 'panoptic', 'stuff', 'image_info')
_USUAL = ('instances', '_annotations.coco')  # beginnings that win where there are several files
_ANNOTATION_FOLDERS = ('annotations', 'annotation', 'labels')
_DEPTH = 2  # folders below the dataset's that are looked into
_SAMPLE = 8  # images that are looked for
_SHOWN = 6  # names listed in a line
Category = Mapping[str, Any]


@dataclass(frozen=True)
class Split:
    """A part of a dataset.

    Attributes:
        ann_file: Annotation file in COCO format.
        images: Folder to which the file names in it are relative.
        image_count: Images that the file lists.
        categories: Its categories, in its order.
        used: Ids of the categories that have an annotation.
    """

    ann_file: Path
    images: Path
    image_count: int
    categories: tuple[Category, ...]
    used: frozenset[int]


class Search:
    """A dataset's folder, looked through once.

    Args:
        root: The folder; None if all files are named.
    """

    def __init__(self, root: str | os.PathLike[str] | None) -> None:
        self.root = None if root is None else Path(root)
        self.folders: list[Path] = []
        self.files: list[Path] = []
        if self.root is not None:
            self.folders, self.files = scan(self.root)

    def annotation_file(self, split: str, named: str | None) -> Path:
        """The annotation file of a split that is needed.

        Args:
            split: 'train' or 'val'.
            named: The file, if the user named it.

        Raises:
            UserError: There is none, or several.
        """
        path = Path(named) if named else self.optional_file(split)
        if path is None:
            raise UserError(self._nothing_found(split))
        if not path.is_file():
            raise UserError(f'--{split}-ann: there is no file {path}')
        return path

    def optional_file(self, split: str) -> Path | None:
        """The annotation file of a split, if there is one.

        Args:
            split: 'train', 'val' or 'test'.

        Raises:
            UserError: There are several.
        """
        found = [path for path in self.files if _split_below(self.root, path) == split]
        found = [path for path in found if not path.name.startswith(_OTHER_TASKS)]
        usual = [path for path in found if path.name.startswith(_USUAL)]
        found = usual or found
        if len(found) > 1:
            raise UserError(
                f'{self.root} has several annotation files for {split}: {listed(found)}; say '
                f'which with {_flag(split, "ann FILE")}, or move the others away'
            )
        return found[0] if found else None

    def test_files(self) -> list[Path]:
        """All annotation files for testing, also those without annotations, as COCO has them."""
        return [path for path in self.files if _split_below(self.root, path) == 'test']

    def test_split(self, images: str | None = None) -> Split | None:
        """The test split, if there is one with annotations.

        Args:
            images: Folder of its images, if the user named it.

        Raises:
            UserError: See `split`.
        """
        path = self.optional_file('test')
        split = self.split('test', path, images) if path else None
        return split if split and split.used else None

    def split(self, name: str, path: Path, images: str | None) -> Split:
        """Read an annotation file and find its images.

        Args:
            name: 'train', 'val' or 'test'.
            path: The annotation file.
            images: Folder of the images, if the user named it.

        Raises:
            UserError: The file is not in COCO format, or its images are not or twice there.
        """
        content = _read(path, unlabelled=name == 'test')
        names = [image['file_name'] for image in content['images']]
        if not names:
            raise UserError(f'annotation file {path} lists no images')
        sample = names[:: max(len(names) // _SAMPLE, 1)][:_SAMPLE]
        return Split(
            ann_file=path,
            images=self._image_folder(name, path, sample, images),
            image_count=len(names),
            categories=tuple(content['categories']),
            used=frozenset(note['category_id'] for note in content['annotations']),
        )

    def probable_images(self, split: str, path: Path) -> Path:
        """Folder of the images of a file, or where the file does not tell, what is named like it.

        Args:
            split: 'train', 'val' or 'test'.
            path: The annotation file, which may be broken.
        """
        try:
            return self.split(split, path, None).images
        except UserError:
            named = [folder for folder in self.folders if _split_below(self.root, folder) == split]
            return named[0] if named else path.parent

    def _image_folder(
        self, split: str, path: Path, sample: Sequence[str], named: str | None
    ) -> Path:
        flag = _flag(split, 'images DIR')
        if named:
            if not _count_in(Path(named), sample):
                raise UserError(f'{flag} {named}: {sample[0]}, which {path} names, is not there')
            return Path(named)
        folders = {folder: _split_below(self.root, folder) for folder in self.folders}
        if self.root is None or self.root.resolve() not in path.resolve().parents:
            around = _root_of(path)
            folders |= {folder: _split_below(around, folder) for folder in scan(around)[0]}
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
                f'{self.root} is in {other} format; convert it first: python '
                f'tools/convert_dataset.py {self.root} NEW_FOLDER'
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
    return f'--val-{rest} of tools/test.py' if split == 'test' else f'--{split}-{rest}'


def split_of(name: str) -> str | None:
    """The split that a file or folder is named after, or None.

    Args:
        name: Name without the path, such as ``instances_train2017.json``.
    """
    found = {_WORDS[word] for word in re.findall('[a-z]+', name.lower()) if word in _WORDS}
    return found.pop() if len(found) == 1 else None


def _split_below(root: Path | None, path: Path) -> str | None:
    """The split that a file or folder belongs to, by the nearest name that tells."""
    parts = path.relative_to(root).parts if root else path.parts
    return next((split for split in map(split_of, reversed(parts)) if split), None)


def other_format(root: Path) -> str | None:
    """Which format that is not COCO's a folder seems to be in: 'YOLO', 'Pascal VOC' or None.

    Args:
        root: Folder of a dataset.
    """
    if any(root.glob('*.yaml')) or any(root.glob('*.yml')):
        return 'YOLO'
    folders, _ = scan(root)
    for folder in folders:
        if any(folder.glob('*.xml')):
            return 'Pascal VOC'
        if 'labels' in folder.relative_to(root).parts and any(folder.glob('*.txt')):
            return 'YOLO'
    return None


def _read(path: Path, unlabelled: bool) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
        if unlabelled:
            content.setdefault('annotations', [])
        for key, needed in (
            ('images', dict(file_name=str)),
            ('annotations', dict(category_id=int)),
            ('categories', dict(id=int, name=str)),
        ):
            for entry in content[key]:
                for field, kind in needed.items():
                    if not isinstance(entry[field], kind):
                        raise TypeError(f'{key}: {field} is {entry[field]!r}')
    except (OSError, ValueError) as error:
        raise UserError(f'annotation file {path} is no valid JSON: {error}') from error
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f'annotation file {path} is not in COCO format: {error!r}') from error
    if not content['categories']:
        raise UserError(f'annotation file {path} has no categories')
    return dict(content)


def scan(root: Path) -> tuple[list[Path], list[Path]]:
    """What a dataset's folder holds, down to a few levels below it.

    Args:
        root: The folder.

    Returns:
        Folders, the root among them, and JSON files, in the order of their names.
    """
    folders, files = [root], []
    level = [root]
    for _ in range(_DEPTH + 1):
        below: list[Path] = []
        for folder in level:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith('.'):
                        continue
                    if entry.name.endswith('.json'):
                        files.append(Path(entry.path))
                    elif entry.is_dir():
                        below.append(Path(entry.path))
        folders += below
        level = below
    return sorted(folders), sorted(files)


def _root_of(path: Path) -> Path:
    """Where to look for the images of an annotation file that was named."""
    return path.parent.parent if path.parent.name in _ANNOTATION_FOLDERS else path.parent


def _count_in(folder: Path, names: Sequence[str]) -> int:
    return sum(_is_in(folder, name) for name in names)


def _is_in(folder: Path, name: str) -> bool:
    try:
        return (folder / name).is_file()
    except OSError:  # a name that no file can have
        return False


def listed(names: Iterable[object]) -> str:
    """The first of some names, for a line of text.

    Args:
        names: The names.
    """
    texts = [str(name) for name in names]
    return ', '.join(texts[:_SHOWN]) + (', ...' if len(texts) > _SHOWN else '')

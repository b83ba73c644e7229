"""The toy dataset in layouts of other people, with other ids and names."""

import json
import shutil
from pathlib import Path
from typing import Any


def split_of_toy(toy: Path, split: str) -> tuple[dict[str, Any], Path]:
    """Annotations of a split, 'train' or 'val', and the folder of its images."""
    content = json.loads((toy / 'annotations' / f'instances_{split}2017.json').read_text())
    return content, toy / f'{split}2017'


def write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def coco_2017(toy: Path, target: Path) -> Path:
    """COCO's own names, with the files that COCO ships beside the boxes."""
    for split in ('train', 'val'):
        content, images = split_of_toy(toy, split)
        write(target / 'annotations' / f'instances_{split}2017.json', content)
        write(target / 'annotations' / f'captions_{split}2017.json', dict(annotations=[]))
        shutil.copytree(images, target / f'{split}2017')
    return target


def roboflow(toy: Path, target: Path) -> Path:
    """Annotations beside the images, ids from 0, and a category 0 that is the project's name."""
    for split, folder in (('train', 'train'), ('val', 'valid')):
        content, images = split_of_toy(toy, split)
        shutil.copytree(images, target / folder)
        names = [category['name'] for category in content['categories']]
        content['categories'] = [dict(id=0, name='toys', supercategory='none')] + [
            dict(id=i, name=name, supercategory='toys') for i, name in enumerate(names, start=1)
        ]
        numbers = {image['id']: number for number, image in enumerate(content['images'])}
        for image in content['images']:
            image.update(id=numbers[image['id']], license=1)
        for annotation in content['annotations']:
            annotation.update(image_id=numbers[annotation['image_id']], segmentation=[])
        write(target / folder / '_annotations.coco.json', content)
    (target / 'README.dataset.txt').write_text('exported')
    return target


def folders_in_names(toy: Path, target: Path) -> Path:
    """``train.json`` and ``val.json`` whose file names contain the folder; ids with gaps."""
    for split in ('train', 'val'):
        content, images = split_of_toy(toy, split)
        shutil.copytree(images, target / 'images' / split)
        for image in content['images']:
            image['file_name'] = f'{split}/{image["file_name"]}'
        for entry in content['categories']:
            entry['id'] = 10 * entry['id'] + 3
        for entry in content['annotations']:
            entry['category_id'] = 10 * entry['category_id'] + 3
        write(target / 'annotations' / f'{split}.json', content)
    return target


def _objects(content: dict[str, Any], image: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry for entry in content['annotations'] if entry['image_id'] == image['id']]


def yolo(toy: Path, target: Path) -> Path:
    """Ultralytics' layout; the images without objects have no label file."""
    for split in ('train', 'val'):
        content, images = split_of_toy(toy, split)
        shutil.copytree(images, target / 'images' / split)
        (target / 'labels' / split).mkdir(parents=True)
        for image in content['images']:
            lines, size = [], (image['width'], image['height'])
            for entry in _objects(content, image):
                x, y, w, h = entry['bbox']
                centre = f'{(x + w / 2) / size[0]} {(y + h / 2) / size[1]}'
                lines.append(f'{entry["category_id"] - 1} {centre} {w / size[0]} {h / size[1]}')
            if lines:
                name = image['file_name'].replace('.jpg', '.txt')
                (target / 'labels' / split / name).write_text('\n'.join(lines))
    names = [category['name'] for category in content['categories']]
    (target / 'data.yaml').write_text(f'train: images/train\nval: images/val\nnames: {names}\n')
    return target


def voc(toy: Path, target: Path, beside: bool = True) -> Path:
    """XML files beside the images of each split, or VOC's own layout with lists of the splits."""
    for split in ('train', 'val'):
        content, images = split_of_toy(toy, split)
        names = {category['id']: category['name'] for category in content['categories']}
        pictures = target / (split if beside else 'JPEGImages')
        texts = target / (split if beside else 'Annotations')
        lists = target / 'ImageSets' / 'Main'
        for folder in (pictures, texts) if beside else (pictures, texts, lists):
            folder.mkdir(parents=True, exist_ok=True)
        for image in content['images']:
            objects = f'<filename>{image["file_name"]}</filename>'
            for entry in _objects(content, image):
                x, y, w, h = entry['bbox']
                corners = dict(xmin=x + 1, ymin=y + 1, xmax=x + w, ymax=y + h)  # counted from 1
                box = ''.join(f'<{key}>{value}</{key}>' for key, value in corners.items())
                name = names[entry['category_id']]
                objects += f'<object><name>{name}</name><bndbox>{box}</bndbox></object>'
            stem = f'{split}_{Path(image["file_name"]).stem}'
            shutil.copy(images / image['file_name'], pictures / f'{stem}.jpg')
            (texts / f'{stem}.xml').write_text(f'<annotation>{objects}</annotation>')
        if not beside:
            stems = sorted(path.stem for path in texts.glob(f'{split}_*'))
            (lists / f'{split}.txt').write_text('\n'.join(stems))
    return target


LAYOUTS = dict(coco_2017=coco_2017, roboflow=roboflow, folders_in_names=folders_in_names)

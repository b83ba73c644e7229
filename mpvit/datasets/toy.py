"""A small COCO-format dataset that is drawn rather than downloaded.

Coloured shapes and real handwritten digits (scikit-learn) lie on real photographs (scikit-image,
scikit-learn). Training and validation images have different photographs behind them and
different digits on them. The same seed gives the same files.
"""

import json
import os
from collections.abc import Iterator
from colorsys import hsv_to_rgb
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from tqdm import tqdm

from mpvit.errors import UserError, optional
from mpvit.files.untrusted import holds
from mpvit.files.writing import NotWritten, whole_folder

CLASSES = ('circle', 'square', 'triangle', 'star', 'cross', 'digit')
#: A distinct colour per class for drawings, RGB in [0, 255].
PALETTE = [(220, 20, 60), (0, 128, 255), (0, 170, 80), (255, 165, 0), (148, 0, 211), (0, 200, 200)]
_SPLITS = ('train2017', 'val2017')
_PHOTOS = {  # of each split: files below the folders of packages
    'train2017': {
        'skimage.data': 'astronaut.png chelsea.png coffee.png rocket.jpg motorcycle_left.png '
        'brick.png grass.png retina.jpg ihc.png',
        'sklearn.datasets': 'images/flower.jpg',
    },
    'val2017': {
        'skimage.data': 'camera.png gravel.png hubble_deep_field.jpg clock_motion.png',
        'sklearn.datasets': 'images/china.jpg',
    },
}
_MARKER = 'toy.json'
_SUPERSAMPLING = 4  # shapes are drawn this much larger and shrunk, for smooth edges
_MAX_OVERLAP = 0.1  # of the smaller of two boxes
# Classes have a usual hue, as many real ones do; neighbours on the colour circle overlap a little.
_HUE_SPREAD = 0.05
_CONTRAST = 120  # distance in RGB from the mean colour behind an object
Mask = NDArray[np.float32]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class ToySpec:
    """What is drawn.

    Attributes:
        train_images: Images of the training split.
        val_images: Images of the validation split.
        min_size: Smallest image side in pixels.
        max_size: Largest image side in pixels.
        empty: Share of images without objects, in [0, 1].
        max_objects: Most objects in an image.
        seed: Seed of all random choices.
        version: Changes when the drawing code changes what it draws.
    """

    train_images: int = 800
    val_images: int = 120
    min_size: int = 112
    max_size: int = 192
    empty: float = 0.04
    max_objects: int = 4
    seed: int = 0
    version: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        sized = 16 <= self.min_size <= self.max_size
        counted = min(self.train_images, self.val_images, self.max_objects) > 0
        if not (sized and counted and 0 <= self.empty <= 1):
            raise UserError(
                'toy dataset: expected are 16 <= min_size <= max_size, empty in [0, 1], an image '
                f'in each split and max_objects from 1 on, not {self}'
            )


def write_toy_dataset(root: str | os.PathLike[str], spec: ToySpec | None = None) -> Path:
    """Write the dataset in the layout of COCO 2017, unless it is there; return ``root``.

    The folder appears in one step when it is complete, so a killed run leaves nothing half done
    and several processes may call this at once.

    Args:
        root: Folder to write: ``annotations/instances_{train,val}2017.json``, ``train2017/``,
            ``val2017/``.
        spec: What to draw.

    Raises:
        UserError: The folder holds something else, or scikit-image or scikit-learn is not
            installed.
    """
    root, spec = Path(root), spec or ToySpec()
    if _is_complete(root, spec):
        return root
    if root.exists() and any(root.iterdir()):
        drawn = (root / _MARKER).is_file()
        what = 'a toy dataset drawn to another specification' if drawn else 'other files'
        raise UserError(f'{root} holds {what}; name another folder')
    try:
        with whole_folder(root) as work:
            for split_index, split in enumerate(_SPLITS):
                _write_split(work, split, spec, np.random.default_rng([spec.seed, split_index]))
            (work / _MARKER).write_bytes(_drawn(spec).encode())
    except NotWritten:
        if not _is_complete(root, spec):  # another process may have been faster
            raise
    return root


def _drawn(spec: ToySpec) -> str:
    return json.dumps(asdict(spec), indent=2)


def _is_complete(root: Path, spec: ToySpec) -> bool:
    return holds(root / _MARKER, _drawn(spec))


def _write_split(root: Path, split: str, spec: ToySpec, rng: Generator) -> None:
    count = spec.train_images if split == 'train2017' else spec.val_images
    (root / split).mkdir()
    (root / 'annotations').mkdir(exist_ok=True)
    photos = _load_photos(split)
    digits = _load_digits(split)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    # quiet in log files and tests; `disable=None` shows the bar on a terminal only
    for image_id in tqdm(range(1, count + 1), f'drawing {split}', disable=None):
        canvas = _background(photos[rng.integers(len(photos))], spec, rng)
        objects = list(_draw_objects(canvas, digits, spec, rng))
        name = f'{image_id:012d}.jpg'
        Image.fromarray(canvas.round().astype(np.uint8)).save(root / split / name, quality=92)
        height, width = canvas.shape[:2]
        images.append(dict(id=image_id, file_name=name, height=height, width=width))
        for category, (left, top, right, bottom) in objects:
            box = [left, top, right - left, bottom - top]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=category + 1,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=0,
                )
            )
    categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES, start=1)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))


def _load_photos(split: str) -> list[Image.Image]:
    photos = []
    for package, names in _PHOTOS[split].items():
        folder = Path(str(optional(package, 'toy datasets', 'demo').__file__)).parent
        photos += [Image.open(folder / name).convert('RGB') for name in names.split()]
    return photos


def _load_digits(split: str) -> list[Mask]:
    """Ink masks in [0, 1]; every fifth digit belongs to validation."""
    from sklearn.datasets import load_digits

    masks = load_digits().images.astype(np.float32) / 16
    chosen = np.arange(len(masks)) % 5 == 0
    return list(masks[chosen if split == 'val2017' else ~chosen])


def _background(photo: Image.Image, spec: ToySpec, rng: Generator) -> NDArray[np.float32]:
    """A random crop of a photo, resized to a random image size, darkened or brightened."""
    width, height = (int(n) for n in rng.integers(spec.min_size, spec.max_size + 1, 2))
    # how much of the photo is shown; small photos are enlarged
    limit = min(photo.width / width, photo.height / height, 3)
    scale = rng.uniform(min(1, limit), limit)
    crop_w, crop_h = int(width * scale), int(height * scale)
    left = int(rng.integers(photo.width - crop_w + 1))
    top = int(rng.integers(photo.height - crop_h + 1))
    crop = photo.resize((width, height), box=(left, top, left + crop_w, top + crop_h))
    if rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(crop, np.float32)
    return (pixels - 128) * rng.uniform(0.6, 1.0) + 128 + rng.uniform(-20, 20)


def _draw_objects(
    canvas: NDArray[np.float32], digits: list[Mask], spec: ToySpec, rng: Generator
) -> Iterator[tuple[int, Box]]:
    """Draw objects into the canvas and yield their class and tight box ``(x1, y1, x2, y2)``."""
    canvas.clip(0, 255, out=canvas)
    if rng.random() < spec.empty:
        return
    height, width = canvas.shape[:2]
    taken: list[Box] = []
    for _ in range(int(rng.integers(1, spec.max_objects + 1))):
        category = int(rng.integers(len(CLASSES)))
        # log-uniform, so that all of COCO's size groups occur
        largest = 0.8 * min(width, height)
        extent = np.log([min(0.17 * max(width, height), largest), largest])
        size = int(np.exp(rng.uniform(*extent)))
        mask = _mask(CLASSES[category], size, digits, rng)
        rows, cols = np.nonzero(mask.max(1) > 0.3)[0], np.nonzero(mask.max(0) > 0.3)[0]
        mask = mask[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
        for _attempt in range(20):
            left = int(rng.integers(width - mask.shape[1] + 1))
            top = int(rng.integers(height - mask.shape[0] + 1))
            box = (left, top, left + mask.shape[1], top + mask.shape[0])
            if all(_overlap(box, other) <= _MAX_OVERLAP for other in taken):
                break
        else:
            continue
        taken.append(box)
        region = canvas[box[1] : box[3], box[0] : box[2]]
        colour = _colour(category, region, rng)
        region += mask[..., None] * (colour - region)
        yield category, box


def _colour(category: int, region: NDArray[np.float32], rng: Generator) -> NDArray[np.float32]:
    """A colour around the class's usual hue that can be told from what lies behind it, RGB."""
    behind = region.mean((0, 1))
    best, best_distance = behind, -1.0
    for _ in range(8):
        hue = (category / len(CLASSES) + rng.normal(0, _HUE_SPREAD)) % 1
        colour = np.array(hsv_to_rgb(hue, rng.uniform(0.5, 1), rng.uniform(0.4, 1))) * 255
        distance = float(np.linalg.norm(colour - behind))
        if distance > best_distance:
            best, best_distance = colour.astype(np.float32), distance
        if distance > _CONTRAST:
            break
    return best


def _overlap(a: Box, b: Box) -> float:
    """Intersection relative to the smaller box."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(width, 0) * max(height, 0) / smaller


def _mask(name: str, size: int, digits: list[Mask], rng: Generator) -> Mask:
    """Opacity in [0, 1] of a shape of about ``size`` pixels, shape ``(size, size)``."""
    large = size * _SUPERSAMPLING
    if name == 'digit':
        ink = Image.fromarray(digits[rng.integers(len(digits))])
        ink = ink.resize((size, size), Image.Resampling.BICUBIC)
        return (2.5 * np.asarray(ink) - 0.6).clip(0, 1).astype(np.float32)
    picture = Image.new('L', (large, large))
    outline = _outline(name) * large * 0.48
    angle = rng.uniform(-0.4, 0.4)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.array([1.0, rng.uniform(0.75, 1.0)])
    points = (outline * stretch) @ turn.T + large / 2
    ImageDraw.Draw(picture).polygon([(float(x), float(y)) for x, y in points], fill=255)
    small = picture.resize((size, size), Image.Resampling.BOX)
    return (np.asarray(small) / 255).astype(np.float32)


def _outline(name: str) -> NDArray[np.float64]:
    """Corners of a shape within the unit circle, shape ``(corners, 2)``."""
    if name == 'cross':
        arm, end = 0.28, 0.9
        quarter = np.array([[arm, -end], [arm, -arm], [end, -arm]])
        turns = [np.array([[c, -s], [s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
        return np.concatenate([quarter @ turn.T for turn in turns])
    corners = {'circle': 48, 'square': 4, 'triangle': 3, 'star': 10}[name]
    phase = np.pi / 4 if name == 'square' else -np.pi / 2
    angles = phase + 2 * np.pi * np.arange(corners) / corners
    radii = np.where(np.arange(corners) % 2 == 0, 1.0, 0.42 if name == 'star' else 1.0)
    return radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], -1)

"""Write a dataset like many first ones: eight kinds of emoji pasted on photographs.

python -m benchmarks.emoji OUT [--font NotoColorEmoji.ttf]

300 images to train and 60 to validate, COCO format. The font is Debian's fonts-noto-color-emoji;
the photographs come with scikit-image. It measures fine-tuning (docs/finetune.md).
"""

import argparse
import json
import math
import random
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

NAMES = dict(
    face='\U0001f600',
    car='\U0001f697',
    apple='\U0001f34e',
    dog='\U0001f436',
    ball='\u26bd',
    tree='\U0001f333',
    key='\U0001f511',
    gift='\U0001f381',
)
PHOTOS = (
    'astronaut.png',
    'coffee.png',
    'chelsea.png',
    'rocket.jpg',
    'motorcycle_left.png',
    'ihc.png',
    'hubble_deep_field.jpg',
    'retina.jpg',
)
SIZES = (44, 170)  # pixels of the longer side of an emoji
IMAGES = dict(train=300, val=60)
Box = tuple[int, int, int, int]


def glyphs(font: str) -> list[Image.Image]:
    """The emoji as pictures with transparency."""
    face = ImageFont.truetype(font, 109)  # the only size of the bitmaps in it
    found = []
    for text in NAMES.values():
        picture = Image.new('RGBA', (136, 128))
        ImageDraw.Draw(picture).text((0, 0), text, font=face, embedded_color=True)
        found.append(picture.crop(picture.getbbox()))
    return found


def photographs() -> list[Image.Image]:
    """The backgrounds."""
    import skimage

    folder = Path(skimage.__file__).parent / 'data'
    return [Image.open(folder / name).convert('RGB') for name in PHOTOS]


def background(rng: random.Random, photos: list[Image.Image]) -> Image.Image:
    """A part of a photograph, 360 to 480 pixels wide and 300 to 400 high."""
    photo = rng.choice(photos)
    width, height = rng.randint(360, 480), rng.randint(300, 400)
    scale = max(width / photo.width, height / photo.height, 1) * rng.uniform(1, 1.3)
    photo = photo.resize((int(photo.width * scale) + 1, int(photo.height * scale) + 1))
    x, y = rng.randint(0, photo.width - width), rng.randint(0, photo.height - height)
    part = photo.crop((x, y, x + width, y + height))
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else part


def paste(
    rng: random.Random, image: Image.Image, kinds: list[Image.Image], placed: list[Box]
) -> tuple[int, Box] | None:
    """Paste an emoji where it covers little of the others; its kind and box."""
    kind = rng.randrange(len(kinds))
    size = int(2 ** rng.uniform(*map(math.log2, SIZES)))
    scale = size / max(kinds[kind].size)
    width, height = (max(1, int(side * scale)) for side in kinds[kind].size)
    picture = kinds[kind].resize((width, height))
    picture = picture.rotate(rng.uniform(-25, 25), Image.Resampling.BICUBIC, expand=True)
    picture = picture.crop(picture.getbbox())
    if picture.width >= image.width or picture.height >= image.height:
        return None
    for _ in range(20):
        x = rng.randint(0, image.width - picture.width)
        y = rng.randint(0, image.height - picture.height)
        box = (x, y, x + picture.width, y + picture.height)
        if not any(_covers(box, other) for other in placed):
            image.paste(picture, (x, y), picture)
            return kind, box
    return None


def _covers(box: Box, other: Box) -> bool:
    """Whether two boxes share more than 30 % of the smaller width and height."""
    shared = [min(box[i + 2], other[i + 2]) - max(box[i], other[i]) for i in (0, 1)]
    sides = [min(box[i + 2] - box[i], other[i + 2] - other[i]) for i in (0, 1)]
    return all(part >= 0.3 * side for part, side in zip(shared, sides, strict=True))


def write(out: Path, font: str, seed: int = 3) -> None:
    """Write both splits."""
    rng, kinds, photos = random.Random(seed), glyphs(font), photographs()
    (out / 'annotations').mkdir(parents=True)
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(NAMES)]
    for split, count in IMAGES.items():
        images: list[dict[str, Any]] = []
        objects: list[dict[str, Any]] = []
        (out / split).mkdir()
        for number in range(1, count + 1):
            image, placed = background(rng, photos), list[Box]()
            for _ in range(rng.randint(1, 5)):
                found = paste(rng, image, kinds, placed)
                if found is None:
                    continue
                kind, (x1, y1, x2, y2) = found
                placed.append(found[1])
                box = dict(bbox=[x1, y1, x2 - x1, y2 - y1], area=(x2 - x1) * (y2 - y1), iscrowd=0)
                place = dict(id=len(objects) + 1, image_id=number, category_id=kind + 1)
                objects.append(box | place)
            name = f'{number:04d}.jpg'
            image.save(out / split / name, quality=92)
            images.append(dict(id=number, file_name=name, width=image.width, height=image.height))
        content = dict(images=images, annotations=objects, categories=categories)
        (out / 'annotations' / f'{split}.json').write_text(json.dumps(content))
        print(f'{split}: {len(images)} images, {len(objects)} boxes')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', type=Path)
    parser.add_argument('--font', default='/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf')
    arguments = parser.parse_args()
    write(arguments.out, arguments.font)

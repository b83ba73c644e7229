"""Categories and sizes of objects, against the config and against each other."""

from collections.abc import Iterator, Sequence

import numpy as np

from mpvit.datasets.check.expectations import Scales
from mpvit.datasets.check.problems import Problem
from mpvit.datasets.table import Annotations, blocks
from mpvit.errors import did_you_mean, listed

_RARE = 10  # boxes
_IMBALANCE = 100  # times
_TINY = 8  # pixels: the finest stride of the detector
_ENLARGED = 3.0
_SHARE = 0.1  # of the boxes, from which on it is worth a warning


def config_problems(table: Annotations, classes: Sequence[str]) -> Iterator[Problem]:
    """Compare the categories of a file with the classes of the config, in their order."""
    names, known, wanted = table.names, {*table.names}, {*classes}
    for name in classes if names else ():  # that there are none is told already
        if name not in known:
            what = f'there is no category {name!r}{did_you_mean(name, names)}'
            yield Problem('class-not-in-data', what, table.file)
    for name, count in table.class_counts().items():
        if name not in wanted and count:  # Roboflow's category 0 has none
            what = f'category {name!r} with {count} box(es) is no class'
            yield Problem('class-not-in-config', what, table.file)
    common = [name for name in names if name in wanted]
    expected = [name for name in classes if name in known]
    if len(set(common)) == len(common) and common != expected:
        what = (
            f'the order in the file is ({listed(common)}), in the config ({listed(expected)}); set '
            f'metainfo.classes to {tuple(common)}'
        )
        yield Problem('class-order', what, table.file)


def split_problems(train: Annotations, val: Annotations) -> Iterator[Problem]:
    """Compare the categories of two files."""
    if train.names != val.names:
        what = f'categories are ({listed(val.names)}), in {train.file} ({listed(train.names)})'
        yield Problem('categories-differ', what, val.file)


def balance_problems(table: Annotations, classes: Sequence[str] | None) -> Iterator[Problem]:
    """How often the classes that count occur in training data; of None all count."""
    counts = table.class_counts(table.trained)
    if classes is not None:
        wanted = {*classes}
        counts = {name: count for name, count in counts.items() if name in wanted}
    for name, count in counts.items():
        if count == 0:
            yield Problem('class-without-boxes', f'category {name!r} has no box', table.file)
        elif count < _RARE:
            what = f'category {name!r} has {count} box{"es" if count > 1 else ""}'
            yield Problem('class-rare', what, table.file)
    present = {name: count for name, count in counts.items() if count}
    if present and max(present.values()) > _IMBALANCE * min(present.values()):
        most, least = max(present, key=present.__getitem__), min(present, key=present.__getitem__)
        what = f'{present[most]} boxes of {most!r}, {present[least]} of {least!r}'
        yield Problem('class-imbalance', what, table.file)


def scale_problems(table: Annotations, scales: Scales) -> Iterator[Problem]:
    """Boxes and images after resizing."""
    trained = table.trained
    limit = '' if scales.longest is None else f', long side at most {scales.longest}'
    at = f'at the largest scale (short side {scales.high}{limit})'
    counts, total = np.zeros(4, int), 0
    for rows in blocks(len(trained)):
        sizes = table.image_sizes(rows)
        keep = trained[rows] & ~np.isnan(sizes[:, 0])
        boxes = table.boxes[rows][keep, 2:] * scales.factor(sizes[keep])[:, None]
        with np.errstate(over='ignore'):
            side = np.sqrt(boxes.prod(1))
        counts += np.histogram(side, [0, _TINY, 32, 96, np.inf])[0]
        total += len(side)
    if total:
        groups = counts / total
        names = (f'under {_TINY} px', f'{_TINY} to 32', '32 to 96', 'over 96')
        shares = ', '.join(f'{share:.0%} {n}' for share, n in zip(groups, names, strict=True))
        yield Problem('box-sizes', f'{at}: {shares}', table.file)
        if groups[0] >= _SHARE:
            yield Problem('boxes-tiny', f'{groups[0]:.0%} under {_TINY} px {at}', table.file)
    sizes = table.sizes[~np.isnan(table.sizes[:, 0])]
    enlarged = int((scales.factor(sizes) > _ENLARGED).sum()) if len(sizes) else 0
    if enlarged:
        what = f'{enlarged} of {len(sizes)} images are enlarged more than {_ENLARGED:g} times {at}'
        yield Problem('images-enlarged', what, table.file)

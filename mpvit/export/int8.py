"""8-bit integers for OpenVINO and onnxruntime, in as many parts as the AP allows.

Only layers with weights in backbone, neck and encoder are quantized. Everything that has boxes in
it stays in float: proposals, decoder, sampling and heads. Quantized whole, the toy detector falls
from an AP of 0.493 to 0. Depthwise convolutions and activations between layers stay in float too,
since quantizing them gains nothing: MPViT-S at 640x640 pixels takes as long, or longer.
"""

import copy
import io
import itertools
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

from mpvit.config.own_data import config_on
from mpvit.config.stored import config_name
from mpvit.datasets.data_files import DataFiles
from mpvit.engine.build import check_data, explained
from mpvit.engine.test import evaluate
from mpvit.errors import UserError
from mpvit.export.quantizers import QUANTIZERS, Feed
from mpvit.models.exported import load_exported
from mpvit.models.runtimes import paths_of

#: Images that are looked at for the ranges of activations; NNCF's own default is 300.
CALIBRATED = 100
_METRIC = 'coco/bbox_mAP'
# Where a layer is, to the part that it is left in float with; the first that fits. The order is
# that in which parts return to float: first what the sampling depends on.
_PARTS: tuple[tuple[str, str | None], ...] = (
    (r'/encoder/layers\.\d+/self_attn/', 'encoder attention'),
    (r'/encoder/', 'encoder'),
    (r'/decoder/layers\.\d+/cross_attn/value_proj/', 'values of the decoder'),
    (r'/neck/', 'neck'),
    (r'/(backbone/[^/]+)/', None),  # a stage, by its name
)


@dataclass(frozen=True)
class Accuracy:
    """What a detector in int8 is accepted by.

    Attributes:
        int8: AP of the detector in int8, in [0, 1].
        float32: AP of the detector in PyTorch.
        left: Parts that were left in float for it.
        images: Images that were calibrated on.
    """

    int8: float
    float32: float
    left: tuple[str, ...]
    images: int

    def __str__(self) -> str:
        """In one line."""
        left = f'; left in float for it: {", ".join(self.left)}' if self.left else ''
        return (
            f'AP {self.int8:.3f}, in PyTorch {self.float32:.3f}; calibrated on {self.images} '
            f'images{left}'
        )


def check_int8(config: str | os.PathLike[str], suffix: str, data: DataFiles | None) -> None:
    """Make sure, before the work begins, that what quantizes and the validation data are there.

    Args:
        config: Config file.
        suffix: Of the file to be written, a key of `mpvit.export.quantizers.QUANTIZERS`.
        data: Dataset to calibrate and to measure on; None for that of the config.

    Raises:
        UserError: They are not.
    """
    cfg = _config_on(config, data)
    if not cfg.get('test_dataloader'):
        raise UserError(f'{config_name(cfg)} has no test_dataloader, which int8 is measured on')
    check_data(cfg, 'test')
    QUANTIZERS[suffix].check()


def quantize(
    config: str | os.PathLike[str],
    checkpoint: str,
    file: Path,
    *,
    data: DataFiles | None = None,
    batch: int | None = None,
    max_drop: float = 0.5,
) -> Accuracy:
    """Quantize an exported file in its place, if the AP allows it.

    Args:
        config: Config file.
        checkpoint: What the file was made from; its AP is the one to keep.
        file: The detector in float32. Its metadata stay.
        data: Dataset to calibrate and to measure on, its test split or else validation's; None
            for that of the config.
        batch: Images in a batch, if the file takes batches of one size only.
        max_drop: By how many points, hundredths of AP, the AP may fall.

    Returns:
        The AP before and after, and what was left in float.

    Raises:
        UserError: Data are missing, or the AP falls by more whatever is left in float.
    """
    options = [f'test_dataloader.batch_size={batch}'] if batch else []
    feeds = _feeds(_config_on(config, data, options), file, batch)
    quantizer = QUANTIZERS[file.suffix](file)
    parts = parts_of(quantizer.layers)

    def ap(model: str) -> float:
        quiet = [*options, 'console_log_level="WARNING"']
        # what is said of a folder that is gone at once helps nobody
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
            metrics = evaluate(config, model, data=data, work_dir=folder, cfg_options=quiet)
        if _METRIC not in metrics:
            raise UserError(f'the test_evaluator of {config} gives no {_METRIC}')
        return metrics[_METRIC]

    def attempt(left: Sequence[str]) -> float:
        layers = {name for part, names in parts.items() if part not in left for name in names}
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            # beside the file, whose weights are still read from the disk
            new = Path(folder) / file.name
            quantizer.write(new, feeds, layers)
            for path in paths_of(new):
                path.replace(file.with_name(path.name))
        return ap(str(file))

    expected = ap(checkpoint)
    actual, left = within(expected, attempt, list(parts), max_drop / 100)
    return Accuracy(actual, expected, tuple(left), len(feeds) * (batch or 1))


def within(
    expected: float, attempt: Callable[[Sequence[str]], float], parts: Sequence[str], bound: float
) -> tuple[float, list[str]]:
    """Leave one part more in float until the AP is within a bound of what is expected.

    NNCF has an order of its own (`quantize_with_accuracy_control`), by layers and by the difference
    that each of them makes: hundreds of evaluations here.

    Args:
        expected: AP in float.
        attempt: Gives the AP with these parts left in float.
        parts: Names in the order in which they are left in float.
        bound: By how much the AP may be lower.

    Returns:
        The AP and the parts that are left in float.

    Raises:
        UserError: With all parts but one in float it is still lower.
    """
    drop = 0.0
    for count in range(len(parts)):
        actual = attempt(parts[:count])
        drop = expected - actual
        if drop <= bound:
            return actual, list(parts[:count])
    raise UserError(
        f'the AP falls from {expected:.3f} by {100 * drop:.1f} points in int8 even if only '
        f'{parts[-1]} is quantized; nothing was written. Allow more with --max-drop, or '
        'export in float32'
    )


def parts_of(layers: Sequence[str]) -> dict[str, list[str]]:
    """Names of the layers that may be quantized, by part, in order."""
    found: dict[tuple[int, str], list[str]] = {}
    for layer in layers:
        if part := _part(layer):
            found.setdefault(part, []).append(layer)
    order = sorted(found, key=lambda part: part[0])  # within a pattern as in the network
    return {part[1]: found[part] for part in order}


def _part(layer: str) -> tuple[int, str] | None:
    """Place of the pattern that fits a layer, and name of its part."""
    for place, (pattern, name) in enumerate(_PARTS):
        if match := re.match(pattern, layer):
            return place, name or match[1].replace('/', '.')
    return None


def _feeds(cfg: Config, file: Path, batch: int | None) -> list[Feed]:
    """Inputs of the network for images of the test set, chosen by chance."""
    detector = load_exported(cfg, file)
    loader = copy.deepcopy(cfg.test_dataloader)
    loader.update(batch_size=batch or 1, num_workers=0, persistent_workers=False, drop_last=True)
    loader.sampler = dict(type='DefaultSampler', shuffle=True, seed=0)
    with explained(cfg):
        batches = iter(Runner.build_dataloader(loader))
        chosen = list(itertools.islice(batches, CALIBRATED // (batch or 1) or 1))
    if not chosen:
        raise UserError(
            f'{config_name(cfg)}: test_dataloader.dataset has fewer than {batch or 1} images, one '
            'batch to calibrate on'
        )
    return [detector.network_inputs(**detector.data_preprocessor(data)) for data in chosen]


def _config_on(
    config: str | os.PathLike[str], data: DataFiles | None, options: Sequence[str] = ()
) -> Config:
    return config_on(data.for_testing() if data else None, config, options)[0]

"""Writing a detector as a file for another runtime."""

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmdet.models import DeformableDETR
from torch import nn

from mpvit import __version__
from mpvit.datasets.data_files import DataFiles
from mpvit.errors import UserError
from mpvit.export.aotinductor import check_compiler, multiple_of, write_package
from mpvit.export.comparison import Differences, verify
from mpvit.export.graph import INPUTS, OUTPUTS, DetectorGraph
from mpvit.export.int8 import Accuracy, check_int8, quantize
from mpvit.export.quantizers import QUANTIZERS
from mpvit.export.tensorrt import check_tensorrt, write_engine
from mpvit.files.locks import target_held
from mpvit.files.paths import expanded, new_file
from mpvit.files.writing import whole_file
from mpvit.inference.loading import evaluated_dataset, load_detector
from mpvit.models.exported import load_exported, pixel_facts
from mpvit.models.runtimes import SECTION, AotInductorNetwork, is_exported, paths_of, required
from mpvit.ops.msda.op import exported_as

#: Format to the suffix of its files.
SUFFIXES = {'onnx': '.onnx', 'openvino': '.xml', 'tensorrt': '.engine', 'aotinductor': '.pt2'}
# What writing and comparing a format needs.
_PACKAGES: dict[str, tuple[str, ...]] = dict(
    onnx=('onnx', 'onnxruntime'), openvino=('onnx', 'openvino'), tensorrt=('onnx',), aotinductor=()
)
OPSET = 17
# Traced on three padded images of odd sizes, so that no size is taken for another one.
_EXAMPLE = (3, 150, 181)


def export(
    config: str | os.PathLike[str],
    checkpoint: str,
    *,
    format: str = 'onnx',
    target: str | None = None,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    dtype: str = 'fp32',
    attention: str = 'grid_sample',
    data: DataFiles | None = None,
    max_drop: float = 0.5,
) -> tuple[Path, Differences | Accuracy]:
    """Export a detector, and compare the file with PyTorch before it is put into place.

    Args:
        config: Config file.
        checkpoint: File or URL.
        format: A key of `SUFFIXES`.
        target: File to write; None for one beside the checkpoint.
        size: Height and width in pixels, if the file is to take images of one size only.
        batch: Images in a batch, if it is to take batches of one size only.
        dtype: 'fp32'; 'fp16' for half the size and, where the hardware has it, the speed; 'int8'
            for CPUs, in ONNX and OpenVINO (`mpvit.export.int8`).
        attention: How deformable attention is written down, one of
            `mpvit.ops.msda.op.EXPORTED_FORMS`.
        data: For int8, dataset to calibrate and measure the AP on; None for that of the config.
        max_drop: For int8, by how many points the AP may fall.

    Returns:
        The file, and the largest differences from PyTorch that were found; for int8 the APs.

    Raises:
        UserError: Config, checkpoint or arguments do not fit together, a package or data is
            missing, the file exists, cannot be written or is being written, or the exported
            detector deviates.
    """
    checkpoint = expanded(checkpoint)
    file = _target(checkpoint, format, target)
    with target_held(file, 'choose another --out'):
        _target(checkpoint, format, target)  # another export may have written it by now
        if dtype == 'int8' and file.suffix not in QUANTIZERS:
            raise UserError(f'--dtype int8 is for --format onnx and openvino, not for {format}')
        if dtype != 'fp32' and format == 'aotinductor':
            raise UserError(f'--dtype {dtype} is not for --format aotinductor')
        if format == 'tensorrt':
            check_tensorrt()
        elif format == 'aotinductor':
            check_compiler()
        settings: Any = dict(size=size, batch=batch, dtype=dtype, attention=attention)
        if dtype == 'int8':
            check_int8(config, file.suffix, data)
            settings['integers'] = partial(quantize, data=data, batch=batch, max_drop=max_drop)
        return file, _export(config, checkpoint, file, format, **settings)


def _export(
    config: str | os.PathLike[str],
    checkpoint: str,
    file: Path,
    format: str,
    *,
    size: tuple[int, int] | None,
    batch: int | None,
    dtype: str,
    attention: str,
    integers: Callable[..., Accuracy] | None = None,
) -> Differences | Accuracy:
    """Write the file, as `export` does; ``integers`` quantizes it."""
    for package in _PACKAGES[format]:
        required(package)
    if is_exported(checkpoint):
        raise UserError(f'{checkpoint} is an exported file; name the checkpoint it was made from')
    reference = load_detector(config, checkpoint)
    if not isinstance(reference, DeformableDETR):
        raise UserError(
            f'{config}: {type(reference).__name__} is not a Deformable DETR; others cannot be '
            'exported here'
        )
    divisor = reference.data_preprocessor.pad_size_divisor
    if size is not None and any(n < 32 or n % divisor for n in size):
        raise UserError(
            f'--size {size[0]} {size[1]}: choose 32 pixels or more, in multiples of {divisor} '
            '(model.data_preprocessor.pad_size_divisor)'
        )
    form: Any = dict(size=size, batch=batch, attention=attention)
    facts = _facts(reference, checkpoint, format, dtype=dtype, **form)
    half = dtype == 'fp16' and format != 'openvino'
    model = load_detector(config, checkpoint, dtype='fp16') if half else reference
    with whole_file(file, new=True) as part:
        _write(model, part, format, facts, form)
        network = AotInductorNetwork(part) if format == 'aotinductor' else None
        device = 'cuda' if format == 'tensorrt' else 'cpu'
        exported = load_exported(reference.cfg, part, device, network=network)
        found: Differences | Accuracy
        found = verify(reference, exported, 'fp32' if integers else dtype)
        if integers:
            found = integers(config, checkpoint, part)
        for path in paths_of(part):
            if path != part:  # weights or metadata
                path.replace(file.with_name(path.name))
    return found


def _write(
    model: Any, file: Path, format: str, facts: Mapping[str, Any], form: Mapping[str, Any]
) -> None:
    """Write a format, unchecked; ``form`` holds size, batch and attention."""
    if format == 'aotinductor':
        write_package(model, file, facts, **form)
        return
    onnx_file = file.with_suffix('.onnx')
    write_onnx(model, onnx_file, facts, **form)
    if format == 'openvino':
        _write_openvino(onnx_file, file, facts, compress=facts['dtype'] == 'fp16')
    elif format == 'tensorrt':
        write_engine(onnx_file, file, facts, size=form['size'], batch=form['batch'])


def _target(checkpoint: str, format: str, target: str | None) -> Path:
    suffix = SUFFIXES[format]
    file = Path(expanded(target) if target else Path(checkpoint).with_suffix(suffix))
    if not target and '://' in checkpoint:
        file = Path(file.name)
    if file.suffix != suffix:
        raise UserError(f'--out {file}: a file for {format} has to be named {suffix}')
    for path in paths_of(file):
        new_file(path)
    return file


def _facts(model: Any, checkpoint: str, format: str = 'onnx', **settings: Any) -> dict[str, Any]:
    """What a consumer of the file needs to know."""
    pixels = model.cfg.model.data_preprocessor
    pipeline = evaluated_dataset(model.cfg).get('pipeline') or []
    resize = [dict(step) for step in pipeline if 'size' in str(step.type)]
    multiple = pixels.get('pad_size_divisor', 1)
    if format == 'aotinductor':
        multiple = multiple_of(multiple, settings['size'])
    local = '://' not in checkpoint
    digest = hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest() if local else None
    return dict(
        classes=list(model.dataset_meta['classes']),
        **pixel_facts(pixels),
        normalisation='(pixel - mean) / std, inside of the graph',
        resize=json.loads(json.dumps(resize, default=str)),
        padding=f'right and below, any value; height and width to a multiple of {multiple}',
        multiple=multiple,
        inputs=INPUTS,
        outputs=OUTPUTS,
        mpvit_version=__version__,
        torch_version=torch.__version__,
        opset=None if format == 'aotinductor' else OPSET,
        config=Path(model.cfg.filename).name,
        checkpoint=Path(checkpoint).name,
        checkpoint_sha256=digest,
        **settings,
    )


def write_onnx(
    model: nn.Module,
    file: Path,
    facts: Mapping[str, Any],
    *,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    attention: str = 'grid_sample',
) -> None:
    """Write the ONNX file, unchecked.

    torch's exporter by tracing: it gives open batches and sizes in seconds, in every torch that is
    supported. The one by `torch.export` takes far longer (docs/export.md).

    The model is a Deformable DETR, prepared for inference; ``facts`` become the metadata; the rest
    is as for `export`.
    """
    onnx = required('onnx')
    count, height, width = batch or _EXAMPLE[0], *(size or _EXAMPLE[1:])
    images = torch.zeros(count, 3, height, width, dtype=torch.uint8)
    sizes = torch.tensor([[height - 9, width], [height, width - 7], [height, width]] * count)
    axes: dict[str, dict[int, str]] = {name: {} for name in (*INPUTS, *OUTPUTS)}
    if batch is None:
        axes = {name: {0: 'batch'} for name in axes}
    if size is None:
        axes['images'] |= {2: 'height', 3: 'width'}
    with exported_as(attention), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # it is deprecated; and what it warns of is compared later
        torch.onnx.export(
            DetectorGraph(model).eval(),
            (images, sizes[:count]),
            str(file),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_axes={name: open_axes for name, open_axes in axes.items() if open_axes},
        )
    content = onnx.load(str(file))
    content.producer_name, content.producer_version = SECTION, __version__
    metadata = {f'{SECTION}.{name}': json.dumps(value) for name, value in facts.items()}
    onnx.helper.set_model_props(content, metadata)
    onnx.save(content, str(file))


def _write_openvino(
    onnx_file: Path, file: Path, facts: Mapping[str, Any], *, compress: bool
) -> None:
    openvino = required('openvino')
    network = openvino.convert_model(onnx_file)
    for name, value in facts.items():
        network.set_rt_info(json.dumps(value), [SECTION, name])
    openvino.save_model(network, file, compress_to_fp16=compress)

"""The runtimes of exported detectors: what opens a file, runs it, and says what is known of it."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mpvit.errors import UserError, optional
from mpvit.files.paths import existing_file, expanded
from mpvit.files.records import read_record
from mpvit.files.untrusted import CHECKPOINT_BYTES, TRUST_VARIABLE, read_untrusted, trusted

#: Suffix of an exported file to the package that runs it.
RUNTIMES = {
    '.onnx': 'onnxruntime',
    '.xml': 'openvino',
    '.engine': 'tensorrt',
    '.pt2': 'aotinductor',
}
# What lies beside a file, by its suffix.
_BESIDE = {'.xml': ('.bin', 'the weights'), '.engine': ('.json', 'what is known of it')}
#: Where a file holds what is known of it: beginning of the keys (ONNX), section (OpenVINO).
SECTION = 'mpvit'
#: Boxes, scores and labels.
Arrays = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]


def is_exported(file: str | os.PathLike[str] | None) -> bool:
    """Whether a file in the place of a checkpoint is an exported detector, by its suffix."""
    return Path(str(file)).suffix.lower() in RUNTIMES


def default_device(file: str | os.PathLike[str]) -> str:
    """Where an exported file runs if nothing else is asked for.

    Returns:
        ``'cuda'`` for an engine, and for an ONNX file where there is a GPU and onnxruntime can use
        it; else ``'cpu'``.

    Raises:
        UserError: onnxruntime is needed and not installed.
    """
    if Path(file).suffix.lower() == '.engine':
        return 'cuda'
    if Path(file).suffix.lower() == '.onnx' and torch.cuda.is_available():
        providers = required('onnxruntime').get_available_providers()
        return 'cuda' if 'CUDAExecutionProvider' in providers else 'cpu'
    return 'cpu'


def required(package: str) -> Any:
    """A package of the extra ``export``.

    Raises:
        UserError: It is not installed.
    """
    return optional(package, 'exported detectors', 'export')


def required_tensorrt() -> Any:
    """TensorRT.

    Raises:
        UserError: It is not installed.
    """
    return optional('tensorrt', 'TensorRT engines', 'tensorrt')


class _OnnxNetwork:
    def __init__(self, file: Path, device: str) -> None:
        runtime = required('onnxruntime')
        provider = 'CUDAExecutionProvider' if device.startswith('cuda') else 'CPUExecutionProvider'
        if provider not in runtime.get_available_providers():
            raise UserError(
                f'device {device}: this onnxruntime has no {provider}; use cpu, or install '
                'onnxruntime-gpu'
            )
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors
        self._session = runtime.InferenceSession(str(file), options, providers=[provider])
        facts = self._session.get_modelmeta().custom_metadata_map
        prefix = f'{SECTION}.'
        self.facts = {k.removeprefix(prefix): v for k, v in facts.items() if k.startswith(prefix)}
        self.multiple = 1
        shape = self._session.get_inputs()[0].shape
        self.shape = [n if isinstance(n, int) else None for n in shape]

    def __call__(self, images: NDArray[np.uint8], sizes: NDArray[np.int64]) -> Arrays:
        names = ['boxes', 'scores', 'labels']
        return tuple(self._session.run(names, dict(images=images, sizes=sizes)))


class _OpenVinoNetwork:
    def __init__(self, file: Path, device: str) -> None:
        runtime = required('openvino')
        if device != 'cpu':
            raise UserError(f'device {device}: OpenVINO files run on the cpu here')
        network = runtime.Core().read_model(file)
        names = network.rt_info[SECTION] if SECTION in network.rt_info else ()
        self.facts = {name: network.get_rt_info([SECTION, name]).astype(str) for name in names}
        self.multiple = 1
        shape = network.inputs[0].partial_shape
        self.shape = [None if n.is_dynamic else n.get_length() for n in shape]
        settings = {
            # it would choose bfloat16 or float16 by itself where the CPU has them
            'INFERENCE_PRECISION_HINT': 'f32',
            'INFERENCE_NUM_THREADS': torch.get_num_threads(),
            'PERFORMANCE_HINT': 'LATENCY',
        }
        self._request = (
            runtime.Core().compile_model(network, 'CPU', settings).create_infer_request()
        )

    def __call__(self, images: NDArray[np.uint8], sizes: NDArray[np.int64]) -> Arrays:
        results = self._request.infer(dict(images=images, sizes=sizes))
        return results['boxes'], results['scores'], results['labels']


def _gpu(device: str) -> torch.device:
    if not device.startswith('cuda') or not torch.cuda.is_available():
        raise UserError(f'device {device}: TensorRT engines run on an NVIDIA GPU only')
    return torch.device(device)


class _TensorRtNetwork:
    def __init__(self, file: Path, device: str) -> None:
        self._device = _gpu(device)
        trt = required_tensorrt()
        known = read_record(file.with_suffix('.json'), {})
        self.facts = {name: json.dumps(value) for name, value in known.items()}
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        with torch.cuda.device(self._device):
            self._engine = self._runtime.deserialize_cuda_engine(
                read_untrusted(file, CHECKPOINT_BYTES)
            )
            if self._engine is None:
                raise ValueError(
                    f'TensorRT {trt.__version__} does not take it: an engine runs with the version '
                    'and on the kind of GPU that it was built with'
                )
            self._context = self._engine.create_execution_context()
        self.multiple = 1
        shape = self._engine.get_tensor_shape('images')
        self.shape = [None if n < 0 else int(n) for n in shape]

    def __call__(self, images: NDArray[np.uint8], sizes: NDArray[np.int64]) -> Arrays:
        context, kinds = self._context, (torch.float32, torch.float32, torch.int64)
        with torch.cuda.device(self._device):
            tensors = {
                name: torch.from_numpy(values).to(self._device)
                for name, values in dict(images=images, sizes=sizes).items()
            }
            for name, tensor in tensors.items():
                if not context.set_input_shape(name, tuple(tensor.shape)):
                    low, _, high = self._engine.get_tensor_profile_shape(name, 0)
                    raise ValueError(
                        f'{name} of shape {tuple(tensor.shape)} do not fit the engine, which takes '
                        f'{tuple(low)} to {tuple(high)}; --size and --batch-size of '
                        '`mpvit export` set that'
                    )
            for name, kind in zip(('boxes', 'scores', 'labels'), kinds, strict=True):
                shape = tuple(context.get_tensor_shape(name))
                tensors[name] = torch.empty(shape, dtype=kind, device=self._device)
            for name, tensor in tensors.items():
                context.set_tensor_address(name, tensor.data_ptr())
            stream = torch.cuda.current_stream()
            if not context.execute_async_v3(stream.cuda_stream):
                raise ValueError('the engine fails')
            stream.synchronize()
        boxes, scores, labels = (tensors[n].cpu().numpy() for n in ('boxes', 'scores', 'labels'))
        return boxes, scores, labels


class AotInductorNetwork:
    """A package of AOTInductor: machine code, which is executed as soon as it is loaded.

    Args:
        file: ``.pt2``, of whoever is trusted.
        device: ``'cpu'``.

    Attributes:
        facts: What the package says of itself, each as JSON.
        shape: Batch, channels, height and width of its images; None for what is open.
        multiple: What an open height and width have to be multiples of.
    """

    def __init__(self, file: Path, device: str = 'cpu') -> None:
        if device != 'cpu':
            raise UserError(f'device {device}: packages of AOTInductor run on the cpu here')
        self._package: Any = torch._inductor.aoti_load_package(str(file))
        facts, prefix = self._package.get_metadata(), f'{SECTION}.'
        self.facts = {k.removeprefix(prefix): v for k, v in facts.items() if k.startswith(prefix)}
        known = {name: json.loads(self.facts[name]) for name in ('batch', 'size', 'multiple')}
        self.multiple: int = known['multiple']
        self.shape = [known['batch'], 3, *(known['size'] or (None, None))]

    def __call__(self, images: NDArray[np.uint8], sizes: NDArray[np.int64]) -> Arrays:
        """Boxes, scores and labels, as `mpvit.export.graph` says."""
        with torch.no_grad():
            outputs = self._package(torch.from_numpy(images), torch.from_numpy(sizes))
        return tuple(output.numpy() for output in outputs)


def _trusted_package(file: Path, device: str) -> AotInductorNetwork:
    if not trusted():
        raise UserError(
            f'{file} holds machine code, which would be executed; if you trust whoever made it, '
            f'set {TRUST_VARIABLE}=1'
        )
    return AotInductorNetwork(file, device)


Network = _OnnxNetwork | _OpenVinoNetwork | _TensorRtNetwork | AotInductorNetwork
_NETWORKS: dict[str, Callable[[Path, str], Network]] = {
    '.onnx': _OnnxNetwork,
    '.xml': _OpenVinoNetwork,
    '.engine': _TensorRtNetwork,
    '.pt2': _trusted_package,
}


def open_network(file: Path, device: str = 'cpu') -> Network:
    """Load an exported file into its runtime.

    Args:
        file: ``.onnx``, ``.xml``, ``.engine`` or ``.pt2``.
        device: ``'cpu'``, or a CUDA device for an ONNX file or an engine.

    Raises:
        UserError: The file is missing, cannot be read or is not ours, the runtime is not
            installed, it does not run on the device, or it would execute code and nobody said
            that it is trusted.
    """
    file = existing_file(expanded(file), 'exported detector')
    for path in paths_of(file)[1:]:
        if not path.is_file():
            what = _BESIDE[file.suffix.lower()][1]
            raise UserError(f'{file}: {what}, {path.name}, is not beside it')
    try:
        network = _NETWORKS[file.suffix.lower()](file, device)
    except UserError:
        raise
    except Exception as error:  # the runtimes have many of their own
        raise UserError(
            f'{file} cannot be read ({reason(error)}); export the detector again'
        ) from error
    if 'classes' not in network.facts or len(network.shape) != 4:
        raise UserError(f'{file} was not written by mpvit export')
    return network


def reason(error: Exception) -> str:
    """What a runtime says, without the places in its code that stand before."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def paths_of(file: Path) -> Sequence[Path]:
    """All files of an exported detector: some have a second one, with weights or metadata."""
    beside = _BESIDE.get(file.suffix.lower())
    return [file, file.with_suffix(beside[0])] if beside else [file]

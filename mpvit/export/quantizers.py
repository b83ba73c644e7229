"""What writes chosen layers of an exported detector in 8-bit integers, by format."""

import copy
import logging
import os
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from mpvit.errors import optional
from mpvit.models.runtimes import required

#: Inputs of the network for one batch.
Feed = Mapping[str, Any]


class Quantizer(Protocol):
    """Reads a file in float32 once, and writes it with some layers in int8, however often.

    Args:
        file: What to read.

    Attributes:
        layers: Names of the layers with weights, without depthwise convolutions, in order.
    """

    layers: Sequence[str]

    def __init__(self, file: Path) -> None: ...

    @staticmethod
    def check() -> None:
        """Make sure that what it needs is installed.

        Raises:
            UserError: It is not.
        """

    def write(self, file: Path, feeds: Sequence[Feed], layers: Container[str]) -> None:
        """Write the file with these layers in int8, for activations as the feeds make them."""


class OpenVinoQuantizer:
    """OpenVINO files, by NNCF; see `Quantizer`."""

    def __init__(self, file: Path) -> None:
        self._network = required('openvino').Core().read_model(file)
        self.layers: Sequence[str] = [
            node.get_friendly_name()
            for node in self._network.get_ordered_ops()
            if node.get_type_name() in ('MatMul', 'Convolution') and self._has_weights(node)
        ]

    @staticmethod
    def _has_weights(node: Any) -> bool:
        source = node.input_value(1).get_node()
        while source.get_type_name() in ('Convert', 'Reshape'):
            source = source.input_value(0).get_node()
        return source.get_type_name() == 'Constant'

    @staticmethod
    def check() -> None:
        """Make sure that NNCF is installed, and keep its telemetry, which may stop to ask, off."""
        os.environ.setdefault('NNCF_CI', '1')
        optional('nncf', 'exports in int8', 'int8').set_log_level(logging.ERROR)

    def write(self, file: Path, feeds: Sequence[Feed], layers: Container[str]) -> None:
        """Write the file with these layers in int8."""
        import nncf

        names = [
            node.get_friendly_name()
            for node in self._network.get_ordered_ops()
            if node.get_type_name() not in ('Constant', 'Parameter', 'Result')
        ]
        quantized = nncf.quantize(
            self._network,
            nncf.Dataset(feeds),
            subset_size=len(feeds),
            ignored_scope=nncf.IgnoredScope(
                names=[name for name in names if name not in layers], validate=False
            ),
        )
        required('openvino').save_model(quantized, file, compress_to_fp16=False)


class OnnxQuantizer:
    """ONNX files, by onnxruntime's own quantization; see `Quantizer`.

    NNCF writes them too, but MPViT-S gains less then (docs/export.md).
    """

    def __init__(self, file: Path) -> None:
        self._network = required('onnx').load(file)
        graph = self._network.graph
        weights = {entry.name for entry in graph.initializer}
        for node in graph.node:
            if node.op_type in ('Identity', 'Transpose') and node.input[0] in weights:
                weights.add(node.output[0])
        self.layers: Sequence[str] = [
            node.name
            for node in graph.node
            if node.op_type in ('MatMul', 'Gemm', 'Conv')
            and node.input[1] in weights
            and not any(entry.name == 'group' and entry.i > 1 for entry in node.attribute)
        ]

    @staticmethod
    def check() -> None:
        """Nothing beside onnxruntime, which every export to ONNX needs."""

    def write(self, file: Path, feeds: Sequence[Feed], layers: Container[str]) -> None:
        """Write the file with these layers in int8."""
        from onnxruntime import quantization

        class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
            batches = iter(feeds)

            def get_next(self) -> Feed | None:
                return next(self.batches, None)

        with _without_advice():
            quantization.quantize_static(
                copy.deepcopy(self._network),
                file,
                Reader(),
                op_types_to_quantize=['MatMul', 'Gemm', 'Conv'],
                nodes_to_quantize=[name for name in self.layers if name in layers],
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )


#: By the suffix of the file.
QUANTIZERS: dict[str, type[Quantizer]] = {'.xml': OpenVinoQuantizer, '.onnx': OnnxQuantizer}


@contextmanager
def _without_advice() -> Iterator[None]:
    """Without what onnxruntime logs as warnings for those who write graphs."""
    root = logging.root
    before, handlers = root.manager.disable, root.handlers[:]
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)
        root.handlers[:] = handlers  # it calls `logging.warning`, which adds one

"""Building an engine of TensorRT for the GPU at hand.

Since TensorRT 11 the precision of every layer is that of the graph. So an engine in float16 is
built from the ONNX graph in float16, which keeps the same parts in float32 as PyTorch does.

Source: "Migrating from TensorRT 10.x to 11.x" in NVIDIA's documentation.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mpvit.errors import UserError
from mpvit.models.runtimes import required_tensorrt

# Lowest, usual and highest number of images, and of pixels of a side, where they are left open.
_BATCHES, _SIDES = (1, 1, 4), (32, 800, 1344)


def check_tensorrt() -> None:
    """Make sure, before the work begins, that an engine can be built here.

    Raises:
        UserError: There is no GPU, or TensorRT is not installed.
    """
    if not torch.cuda.is_available():
        raise UserError(
            '--format tensorrt builds an engine for the GPU of this machine, and PyTorch sees none '
            'here; export on the machine that will run it, or choose --format onnx'
        )
    required_tensorrt()


def write_engine(
    onnx_file: Path,
    file: Path,
    facts: Mapping[str, Any],
    *,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
) -> None:
    """Build an engine from an ONNX file, unchecked, and write what is known of it beside it.

    Args:
        onnx_file: The detector.
        file: Engine to write; the facts go to a file of the same name that ends in ``.json``.
        facts: What a consumer needs to know.
        size: Height and width, if the ONNX file takes images of one size only; otherwise the engine
            takes sides from 32 to 1344 pixels.
        batch: Images in a batch, if it takes batches of one size only; otherwise 1 to 4.

    Raises:
        UserError: TensorRT does not take the graph.
    """
    trt = required_tensorrt()
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    # from TensorRT 11 on there is no other kind of network
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx_file.read_bytes()):
        errors = [str(parser.get_error(place)) for place in range(parser.num_errors)]
        raise UserError(
            f'TensorRT {trt.__version__} does not take the graph ({"; ".join(errors)[:300]}); try '
            'the other --attention; nothing was written'
        )
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 is to be float32
    profile = builder.create_optimization_profile()
    batches = (batch,) * 3 if batch else _BATCHES
    heights, widths = ((n,) * 3 for n in size) if size else (_SIDES, _SIDES)
    images = [(n, 3, h, w) for n, h, w in zip(batches, heights, widths, strict=True)]
    profile.set_shape('images', *images)
    profile.set_shape('sizes', *((n, 2) for n in batches))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise UserError(
            f'TensorRT {trt.__version__} builds no engine from the graph, see its messages above; '
            'try the other --attention, or --size; nothing was written'
        )
    file.write_bytes(plan)
    file.with_suffix('.json').write_text(json.dumps(dict(facts), indent=1) + '\n')

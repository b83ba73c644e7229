"""Write a detector for another runtime, compared with PyTorch (docs/export.md)."""

import argparse
from typing import Any

from mpvit.cli import _arguments as types
from mpvit.files.paths import new_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    types.add_detector(parser)
    formats = ['onnx', 'openvino', 'tensorrt', 'aotinductor']
    types.choice(parser, '--format', formats, 'what to write')
    text = '.onnx, or .xml, .engine, .pt2 for the others (default: beside the checkpoint)'
    types.option(parser, '--out', new_file, 'FILE', text, dest='target')
    text = 'take images of up to this size only (default: any size)'
    types.option(parser, '--size', types.positive, ('H', 'W'), text, nargs=2)
    text = 'take batches of N only (default: any number)'
    types.option(parser, '--batch-size', types.positive, 'N', text, dest='batch')
    types.choice(parser, '--dtype', ['fp32', 'fp16', 'int8'], 'precision')
    text = 'how deformable attention is written down'
    types.choice(parser, '--attention', ['grid_sample', 'gather'], text)
    text = 'int8: by how many points the AP may fall'
    types.option(parser, '--max-drop', types.number(float, 0, 100), 'POINTS', text, default=0.5)
    types.add_data(parser, 'val')


def run(**arguments: Any) -> None:
    """Export, and say how much the result differs from PyTorch."""
    import mpvit.register  # noqa: F401
    from mpvit.export.files import export

    file, differences = export(**arguments)
    print(f'{file}: {differences}')

"""Write a detector as ONNX or OpenVINO, compared with PyTorch (docs/export.md)."""

import argparse
from typing import Any

from mpvit.cli import _arguments as types
from mpvit.files.paths import new_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    types.add_detector(parser)
    parser.add_argument(
        '--format', choices=['onnx', 'openvino'], default='onnx', help='(default: onnx)'
    )
    parser.add_argument(
        '--out',
        dest='target',
        type=new_file,
        metavar='FILE',
        help='.onnx, or .xml for OpenVINO (default: beside the checkpoint)',
    )
    parser.add_argument(
        '--size',
        type=types.positive,
        nargs=2,
        metavar=('H', 'W'),
        help='take images of up to this size only (default: any size)',
    )
    parser.add_argument(
        '--batch-size',
        dest='batch',
        type=types.positive,
        metavar='N',
        help='take batches of N only (default: any number)',
    )
    parser.add_argument(
        '--dtype', choices=['fp32', 'fp16'], default='fp32', help='precision (default: fp32)'
    )
    parser.add_argument(
        '--attention',
        choices=['grid_sample', 'gather'],
        default='grid_sample',
        help='how deformable attention is written down (default: grid_sample)',
    )


def run(**arguments: Any) -> None:
    """Export, and say how much the result differs from PyTorch."""
    import mpvit.register  # noqa: F401
    from mpvit.export.files import export

    file, differences = export(**arguments)
    print(f'{file}: {differences}')

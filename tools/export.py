"""Write a detector as ONNX or OpenVINO: python tools/export.py CONFIG CHECKPOINT --format onnx."""

import argparse
from typing import Any

from _cli import parse, run


def main() -> None:
    """Parse arguments, export, and say how much the result differs from PyTorch."""
    parser = argparse.ArgumentParser(
        description='Write a detector as ONNX or OpenVINO, compared with PyTorch (docs/export.md).'
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument(
        '--format', choices=['onnx', 'openvino'], default='onnx', help='(default: onnx)'
    )
    parser.add_argument(
        '--out',
        dest='target',
        metavar='FILE',
        help='.onnx, or .xml for OpenVINO (default: beside the checkpoint)',
    )
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='take images of up to this size only (default: any size)',
    )
    parser.add_argument(
        '--batch-size',
        dest='batch',
        type=int,
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
    arguments = parse(parser, lambda given: _check(parser, given))

    def export() -> None:
        from mpvit.export import export

        file, differences = export(**arguments)
        print(f'{file}: {differences}')

    run(export)


def _check(parser: argparse.ArgumentParser, arguments: dict[str, Any]) -> None:
    numbers = [*(arguments['size'] or []), arguments['batch'] or 1]
    if min(numbers) < 1 or arguments['batch'] == 0:
        parser.error('--size and --batch-size must be positive')


if __name__ == '__main__':
    main()

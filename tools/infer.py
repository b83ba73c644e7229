"""Detect in images and videos: python tools/infer.py CONFIG CHECKPOINT INPUT..."""

import argparse
import warnings

from _cli import light, parse, run


def main() -> None:
    """Parse arguments, detect, and exit with 1 if inputs could not be read."""
    parser = argparse.ArgumentParser(
        description='Detect in images and videos, draw what is found and list it as JSON and CSV '
        '(docs/inference.md).',
        epilog='Exit status: 0; 1 after an error or if inputs could not be read, which does not '
        'keep the others from being written; 2 for wrong arguments.',
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument(
        'inputs',
        nargs='+',
        metavar='INPUT',
        help="image, video, folder with all in it, pattern such as 'photos/**/*.jpg', or URL",
    )
    parser.add_argument(
        '--out',
        dest='out_dir',
        metavar='DIR',
        help='new folder for the results (default: infer, infer_2, ... in work_dirs/<config name>)',
    )
    parser.add_argument(
        '--no-pictures', dest='pictures', action='store_false', help='write JSON and CSV only'
    )
    parser.add_argument(
        '--threshold', type=float, default=0.3, help='lowest score of a detection (default: 0.3)'
    )
    parser.add_argument(
        '--classes', nargs='+', metavar='NAME', help='detect these classes only (default: all)'
    )
    parser.add_argument(
        '--batch-size', type=int, default=1, metavar='N', help='images at once (default: 1)'
    )
    parser.add_argument(
        '--tile',
        type=int,
        metavar='PIXELS',
        help='look at large images in overlapping square tiles with this side',
    )
    parser.add_argument(
        '--tta', action='store_true', help='test-time augmentation: also the mirror image'
    )
    parser.add_argument(
        '--device', help='such as cpu, cuda or cuda:1 (default: cuda where there is one, else cpu)'
    )
    parser.add_argument(
        '--dtype',
        choices=['fp32', 'bf16', 'fp16'],
        default='fp32',
        help='precision (default: fp32)',
    )
    parser.add_argument('--compile', action='store_true', help='compile the detector first')
    parser.add_argument(
        '--no-fold', dest='fold', action='store_false', help='leave batch norms as they are'
    )
    arguments = parse(parser)
    run(lambda: light('inference.inputs').find(arguments['inputs']))
    warnings.simplefilter('ignore')  # deprecations inside the libraries, nothing to act on

    def infer() -> None:
        from mpvit.inference import infer

        infer(**arguments, say=print)

    run(infer)


if __name__ == '__main__':
    main()

"""Convert a checkpoint: python tools/convert_checkpoint.py IN OUT [--to official]."""

import argparse

from _cli import parse, run


def main() -> None:
    """Parse arguments and convert."""
    parser = argparse.ArgumentParser(
        description='Convert a checkpoint from official form to ours, or back.'
    )
    parser.add_argument('source', metavar='IN', help='file to read')
    parser.add_argument('target', metavar='OUT', help='file to write')
    parser.add_argument(
        '--to', choices=['ours', 'official'], default='ours', help='form of OUT (default: ours)'
    )
    parser.add_argument(
        '--ema', action='store_true', help='take the moving average (EMA) of the weights'
    )
    parser.add_argument('--sha256', metavar='HEX', help='expected sha256 of IN, or its beginning')
    parser.add_argument('--config', help='config of a detector whose tensors must all be there')
    arguments = parse(parser)

    def convert() -> None:
        from mpvit.conversion import convert_checkpoint

        report = convert_checkpoint(**arguments)
        print('\n'.join([*report.lines(), f'written to {arguments["target"]}']))

    run(convert)


if __name__ == '__main__':
    main()

"""Convert a dataset to COCO format: python tools/convert_dataset.py DIR OUT."""

import argparse

from _cli import parse, run


def main() -> None:
    """Parse arguments and convert."""
    parser = argparse.ArgumentParser(
        description='Write a COCO-format copy of a dataset in YOLO or Pascal VOC format.'
    )
    parser.add_argument('data', metavar='DIR', help='folder of the dataset')
    parser.add_argument('target', metavar='OUT', help='folder to write, which does not exist yet')
    arguments = parse(parser)

    def convert() -> None:
        from mpvit.datasets.convert import convert_dataset

        lines = convert_dataset(arguments['data'], arguments['target'])
        print('\n'.join([*lines, f'written to {arguments["target"]}']))

    run(convert)


if __name__ == '__main__':
    main()

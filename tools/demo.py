"""Train, evaluate and draw on the toy dataset: python tools/demo.py."""

import argparse
import warnings

from _cli import parse, run

CONFIG = 'mpvit_t_ddetr_toy'


def main() -> None:
    """Parse arguments and run the demo."""
    parser = argparse.ArgumentParser(description='Train, evaluate and draw on the toy dataset.')
    parser.add_argument('--config', default=CONFIG, help=f'config file or name (default: {CONFIG})')
    parser.add_argument('--work-dir', metavar='DIR', help='folder for outputs')
    arguments = parse(parser)
    warnings.simplefilter('ignore')  # deprecations inside the libraries, nothing to act on

    def demo() -> None:
        from mpvit.demo import run_demo

        run_demo(**arguments, say=print)

    run(demo)


if __name__ == '__main__':
    main()

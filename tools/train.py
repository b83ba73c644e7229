"""Train a detector: python tools/train.py CONFIG."""

from _cli import common_parser, parse, run


def main() -> None:
    """Parse arguments and train."""
    parser = common_parser('Train a detector.')
    parser.add_argument(
        '--amp',
        nargs='?',
        const='auto',
        choices=['auto', 'bf16', 'fp16'],
        metavar='bf16|fp16',
        help='mixed precision; without a value fp16 on a GPU and bf16 on a CPU',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate linearly with the total batch size',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from a checkpoint, or without a value from the newest in the work folder',
    )
    arguments = parse(parser)

    def train() -> None:
        from mpvit import runner

        runner.train(**arguments)

    run(train)


if __name__ == '__main__':
    main()

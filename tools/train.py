"""Train a detector: python tools/train.py CONFIG [--data DIR]."""

from _cli import add_data, common_parser, parse, run


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
        nargs='?',
        const='linear',
        choices=['linear', 'sqrt', 'off'],
        metavar='linear|sqrt|off',
        help='how the learning rate follows the images of a step (default: as in the config)',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from a checkpoint, or without a value from the newest in the work folder',
    )
    parser.add_argument(
        '--track',
        nargs='+',
        choices=['wandb', 'mlflow'],
        default=[],
        metavar='wandb|mlflow',
        help='record also with Weights & Biases or MLflow; TensorBoard always is',
    )
    add_data(parser, 'train', 'val')
    arguments = parse(parser)

    def train() -> None:
        from mpvit import runner

        runner.train(**arguments)

    run(train)


if __name__ == '__main__':
    main()

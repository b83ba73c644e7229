"""Evaluate a checkpoint: python tools/test.py CONFIG CHECKPOINT --eval bbox."""

from _cli import add_data, common_parser, parse, run


def main() -> None:
    """Parse arguments and evaluate."""
    parser = common_parser('Evaluate a checkpoint on the test set of a config.')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument(
        '--eval', choices=['bbox'], default='bbox', help='what to evaluate (default: bbox)'
    )
    parser.add_argument('--classwise', action='store_true', help='also report every class')
    parser.add_argument('--out', metavar='FILE.pkl', help='write the raw detections as a pickle')
    parser.add_argument('--show-dir', metavar='DIR', help='write pictures with the detections')
    parser.add_argument(
        '--tta', action='store_true', help='test-time augmentation: also the mirror image'
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
    add_data(parser, 'val')
    arguments = parse(parser)
    del arguments['eval']  # box AP is the only thing there is to evaluate

    def evaluate() -> None:
        from mpvit import runner

        runner.evaluate(**arguments)

    run(evaluate)


if __name__ == '__main__':
    main()

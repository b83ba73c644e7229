"""What is wrong with arguments, as far as it can be told from them and the files they name.

Standard library only: the tools load this package without the rest, whose import takes seconds,
so that most mistakes are answered at once.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from mpvit.arguments.configs import (
    check_config,
    check_configs,
)
from mpvit.arguments.inputs import (
    check_checkpoint,
    check_file,
    check_folder,
    check_resume,
)
from mpvit.arguments.outputs import (
    check_figure,
    check_out,
    check_out_dir,
    check_picture,
    check_sheets,
    check_target,
    check_work_dir,
)
from mpvit.arguments.values import (
    check_batch_size,
    check_count,
    check_options,
    check_runs,
    check_sizes,
    check_threshold,
    check_tile,
    check_track,
)


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Check the arguments that are checked here, by the names that all tools give them.

    Args:
        arguments: Values by name; None where an argument was not given.

    Raises:
        UserError: One of them cannot be right.
    """
    for name, check in _CHECKS.items():
        if arguments.get(name) is not None:
            check(arguments[name])


_DETECTIONS = '; tools/test.py writes them as detections.bbox.json'
_annotations = partial(check_file, what='annotation file')
_CHECKS: dict[str, Callable[[Any], None]] = {
    'config': check_config,
    'cfg_options': check_options,
    'checkpoint': check_checkpoint,
    'resume': check_resume,
    'source': check_checkpoint,
    'work_dir': check_work_dir,
    'out': check_out,
    'data': check_folder,
    'train_ann': _annotations,
    'val_ann': _annotations,
    'train_images': check_folder,
    'val_images': check_folder,
    'target': check_target,
    'json': check_target,
    'picture': check_picture,
    'fix': check_target,
    'fix_val': check_target,
    'out_dir': check_out_dir,
    'threshold': check_threshold,
    'batch_size': check_batch_size,
    'tile': check_tile,
    'image': partial(check_file, what='image'),
    'figure': check_figure,
    'track': check_track,
    'sheets': check_sheets,
    'detections': partial(check_file, what='detections', hint=_DETECTIONS),
    'count': check_count,
    'configs': check_configs,
    'sizes': check_sizes,
    'runs': check_runs,
}

"""From what a user names to a folder of results: the door that the tool goes through."""

import os
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mpvit.engine.run_errors import explained_faults
from mpvit.errors import UserError, optional
from mpvit.files.paths import new_folder
from mpvit.inference.detector import Detector
from mpvit.inference.inputs import find
from mpvit.inference.outputs import Outputs


def infer(
    config: str | os.PathLike[str],
    checkpoint: str | os.PathLike[str],
    inputs: Sequence[str | os.PathLike[str]],
    *,
    out_dir: str | os.PathLike[str] | None = None,
    pictures: bool = True,
    say: Callable[[str], object] = lambda line: None,
    **settings: Any,
) -> Path:
    """Detect in files, folders, videos and addresses, and write what is found.

    Args:
        config: Config file.
        checkpoint: Checkpoint file or URL.
        inputs: See `mpvit.inference.inputs.find`.
        out_dir: New or empty folder for the results (`mpvit.inference.outputs.Outputs`); None for
            ``infer``, ``infer_2``, ... in the work folder of the config.
        pictures: Also draw what is found.
        say: Shows a line to the user, such as ``print``.
        **settings: As for `Detector`.

    Returns:
        The folder.

    Raises:
        UserError: Something does not fit together, or inputs could not be read; the rest is
            written all the same.
    """
    places = find(inputs)
    if out_dir is not None:
        new_folder(out_dir)
    if pictures:
        optional('supervision', 'annotated pictures')
    detector = Detector(config, checkpoint, **settings)
    folder = Path(out_dir) if out_dir is not None else _free_folder(detector.model)
    found_by = dict(config=str(config), checkpoint=str(checkpoint), **settings)
    failures: list[UserError] = []
    with (
        explained_faults(),  # a full disk
        Outputs(folder, detector.classes, found_by, pictures) as outputs,
        tqdm(total=len(places), unit='image', dynamic_ncols=True, mininterval=0.5) as bar,
    ):
        try:
            for source, found in detector.predict(places, failures.append):
                outputs.add(source, found)
                bar.set_description(Path(source.name).name, refresh=False)
                if source.moment is not None and source.moment.frame == 0:
                    bar.total += max(source.moment.frames - 1, 0)
                bar.update()
        finally:
            bar.close()
            say(_summary(outputs, detector.threshold))
            say(f'Results are in {folder}')
    if failures:
        counted = f'{len(failures)} of {len(places)} inputs could not be read:'
        raise UserError(counted, *map(str, failures))
    return folder


def _free_folder(model: Any) -> Path:
    """A folder that does not exist yet: no run writes over the results of another."""
    folder = Path(model.cfg.work_dir)
    names = (f'infer_{number}' if number > 1 else 'infer' for number in count(1))
    return next(path for name in names if not (path := folder / name).exists())


def _summary(outputs: Outputs, threshold: float) -> str:
    classes = ', '.join(f'{name} {number}' for name, number in outputs.found.most_common())
    return (
        f'{outputs.count} images or frames, {outputs.found.total()} detections with a score of '
        f'{threshold} or more' + (f': {classes}' if classes else '')
    )

"""From what a user names to a folder of results: COCO result JSON, CSV, pictures."""

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

import mpvit.register  # noqa: F401
from mpvit.checkpoints.coco_categories import category_ids
from mpvit.engine.run_errors import explained_faults
from mpvit.errors import UserError, optional
from mpvit.files.locks import target_held
from mpvit.files.paths import new_folder
from mpvit.files.writing import whole_file
from mpvit.inference.detections import Detections
from mpvit.inference.detector import Detector
from mpvit.inference.inputs import find
from mpvit.inference.pictures import Pictures
from mpvit.inference.sources import Source

_COLUMNS = ['file', 'frame', 'class', 'score', 'x1', 'y1', 'x2', 'y2']


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
        out_dir: New or empty folder for the results (see `Outputs`); None for ``infer``,
            ``infer_2``, ... in the work folder of the config.
        pictures: Also draw what is found.
        say: Shows a line to the user, such as ``print``.
        **settings: As for `Detector`.

    Returns:
        The folder.

    Raises:
        UserError: Something does not fit together, or inputs could not be read, or their videos
            not be written; the rest is written all the same.
    """
    places = find(inputs)
    folder = None if out_dir is None else new_folder(Path(out_dir))
    if pictures:
        optional('supervision', 'annotated pictures')
    detector = Detector(config, checkpoint, **settings)
    folder = folder or _free_folder(detector.model)
    found_by = dict(config=str(config), checkpoint=str(checkpoint), **settings)
    failures: list[UserError] = []
    with (
        explained_faults(),  # a full disk
        Outputs(folder, detector.classes, found_by, pictures, failures.append) as outputs,
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
        counted = f'{len(failures)} of {len(places)} inputs could not be read or drawn:'
        raise UserError(counted, *map(str, failures))
    return folder


def _free_folder(model: Any) -> Path:
    """A folder that did not exist: no run writes over the results of another."""
    folder = Path(model.cfg.work_dir)
    for number in count(1):
        path = folder / (f'infer_{number}' if number > 1 else 'infer')
        with suppress(FileExistsError):
            path.mkdir(parents=True)
            break
    return path


class Outputs(ExitStack):
    """Writes what is found into a folder, image by image, in constant memory.

    ``detections.json`` is in COCO's result format; ``images.json`` is a COCO annotation file
    without annotations, which says what the ids in it stand for; ``detections.csv`` has a line for
    each detection; ``annotated/`` holds pictures and videos. All are whole once the context is
    left, also by an error.

    Args:
        folder: New or empty.
        classes: Names by label.
        info: How it was found, for ``images.json``; what JSON can hold.
        pictures: Write pictures and videos.
        failed: Is given the error of each video that the encoder refuses.

    Attributes:
        count: Images and frames so far.
        found: Detections by name of the class.

    Raises:
        UserError: The folder cannot be written, or another process writes there.
    """

    def __init__(
        self,
        folder: Path,
        classes: tuple[str, ...],
        info: Mapping[str, Any],
        pictures: bool,
        failed: Callable[[UserError], object],
    ) -> None:
        super().__init__()
        self.count, self.found = 0, Counter[str]()
        self._folder = folder
        self._ids = category_ids(classes)
        categories = [dict(id=i, name=n) for i, n in zip(self._ids, classes, strict=True)]
        head = json.dumps(dict(info=info, categories=categories, annotations=[]))
        with ExitStack() as opened:  # all or none
            opened.enter_context(target_held(folder, 'name another --out'))
            if (folder / 'detections.json').exists():  # by now
                raise UserError(f'{folder} has results already; name another --out')
            results, images, table = (
                opened.enter_context(_whole(folder / name))
                for name in ('detections.json', 'images.json', 'detections.csv')
            )
            self.enter_context(opened.pop_all())
        self._results = _Array(results, '[')
        self._images = _Array(images, f'{head[:-1]}, "images": [', ']}\n')
        for array in (self._results, self._images):
            self.callback(array.close)
        self._table = csv.writer(table)
        self._table.writerow(_COLUMNS)
        self._pictures = Pictures(folder / 'annotated', failed) if pictures else None
        if self._pictures is not None:
            self.callback(self._pictures.close)

    def __exit__(self, *error: Any) -> None:
        """Finish the files, also after an error: what was found until then is kept."""
        super().__exit__(None, None, None)

    def add(self, source: Source, found: Detections) -> None:
        """Write what was found in an image, or in the next frame of a video."""
        self.count += 1
        self.found.update(found.names)
        place: dict[str, Any] = dict(file_name=source.path)
        if source.moment is not None:
            place |= dict(frame=source.moment.frame, second=round(source.moment.seconds, 6))
        image = dict(id=self.count, **place, width=found.size[0], height=found.size[1])
        if self._pictures is not None:
            path = self._pictures.add(source, found)
            if path is not None:
                image['picture'] = path.relative_to(self._folder).as_posix()
        self._images.add(image)
        for box, score, label, name in zip(
            found.boxes.tolist(), found.scores.tolist(), found.labels, found.names, strict=True
        ):
            x1, y1, x2, y2 = box
            corner_and_size = [x1, y1, x2 - x1, y2 - y1]
            category = dict(category_id=self._ids[label], bbox=corner_and_size, score=score)
            self._results.add(dict(image_id=self.count, **place, **category))
            numbers = [f'{score:.4f}', *(f'{value:.2f}' for value in box)]
            self._table.writerow([source.path, place.get('frame', ''), name, *numbers])


def _summary(outputs: Outputs, threshold: float) -> str:
    classes = ', '.join(f'{name} {number}' for name, number in outputs.found.most_common())
    return (
        f'{outputs.count} images or frames, {outputs.found.total()} detections with a score of '
        f'{threshold} or more' + (f': {classes}' if classes else '')
    )


@contextmanager
def _whole(path: Path) -> Iterator[IO[str]]:
    """A file that has its name when it is finished."""
    # file names that are not UTF-8 become what JSON writes for them
    with (
        whole_file(path) as beside,
        beside.open('w', encoding='utf-8', errors='backslashreplace', newline='') as file,
    ):
        yield file


class _Array:
    """A JSON array that is written element by element."""

    def __init__(self, file: IO[str], head: str, tail: str = ']\n') -> None:
        self._file, self._tail, self._separator = file, tail, '\n'
        file.write(head)

    def add(self, element: Mapping[str, Any]) -> None:
        self._file.write(self._separator + json.dumps(element, ensure_ascii=False))
        self._separator = ',\n'

    def close(self) -> None:
        self._file.write(self._tail)

"""Bad inputs, each with the command that meets it; what is printed stands in docs/errors.md."""

import copy
import json
import pickle
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mpvit.checkpoints.loading import read

_TESTED_BELOW = (
    'no image',
    'no annotation',
    'no category',
    'box of NaN',
    'box of three numbers',
    'every box outside its image',
    'image id twice',
    'web page',
    'text',
    'Git LFS pointer',
    'damaged in the middle',
    'other sha256 than its name says',
    'pickle that runs code',
    'tensor',
)
REAL = 'configs/deformable_detr/mpvit_s_ddetr_50e.py'
TOY = 'configs/deformable_detr/mpvit_t_ddetr_toy.py'


@dataclass
class Place:
    """Where a case happens.

    Attributes:
        folder: Empty folder for the case.
        config: The tiny config.
        options: Overrides that give it the toy dataset.
        toy: That dataset, not to be changed.
        trained: Work folder of a finished training.
    """

    folder: Path
    config: Path
    options: Sequence[str]
    toy: Path
    trained: Path

    def tool(self, name: str, *words: object, options: Sequence[str] = ()) -> list[object]:
        """A command on the toy dataset; ``options`` come after those that name the dataset."""
        overrides = [*self.options, *options]
        return [name, *words, '--work-dir', self.folder / 'work', '--cfg-options', *overrides]

    def train(self, *options: str, config: Path | None = None) -> list[object]:
        """Train the tiny config."""
        return self.tool('train', config or self.config, options=options)

    def test(self, checkpoint: object, *options: str) -> list[object]:
        """Test the tiny config."""
        return self.tool('test', self.config, checkpoint, options=options)

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file into the folder of the case."""
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def data(self) -> tuple[Path, list[str]]:
        """A copy of the toy dataset, and the overrides that name it."""
        copied = self.folder / 'data'
        shutil.copytree(self.toy, copied)
        return copied, [option.replace(str(self.toy), str(copied)) for option in self.options]

    def checkpoint(self, edit: Callable[[dict], None], name: str = 'changed.pth') -> Path:
        """The trained checkpoint after a change."""
        content = read(self.trained / 'epoch_2.pth')
        edit(content)
        torch.save(content, self.folder / name)
        return self.folder / name


@dataclass
class Case:
    """A bad input.

    Attributes:
        section: Of the document.
        what: The input, as the document names it.
        command: Puts it in place; tool and arguments that meet it.
        varies: Regular expression of text that depends on versions of Python or libraries.
        status: Exit status; 2 where argparse refuses.
        slow: Not in the fast suite, which has the same error in a test of what raises it.
    """

    section: str
    what: str
    command: Callable[[Place], list[object]]
    varies: str = ''
    status: int = 1
    slow: bool = False
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = f'{self.section}: {self.what}'
        self.slow = self.slow or self.section == 'Images' or self.what in _TESTED_BELOW


def annotations(edit: Callable[[dict], object]) -> Callable[[Place], list[object]]:
    """Train on annotations after a change."""

    def command(place: Place) -> list[object]:
        content = json.loads((place.toy / 'annotations/instances_train2017.json').read_text())
        edit(content)
        return annotation_file(json.dumps(content))(place)

    return command


def annotation_file(content: str | bytes) -> Callable[[Place], list[object]]:
    """Train on an annotation file."""
    return lambda place: place.train(
        f'train_dataloader.dataset.ann_file={place.write("train.json", content)}'
    )


def images(harm: Callable[[Path], object], *options: str) -> Callable[[Place], list[object]]:
    """Train on a copy of the dataset after harm to its first image."""

    def command(place: Place) -> list[object]:
        folder, overrides = place.data()
        harm(min((folder / 'train2017').iterdir()))
        order = ['train_dataloader.sampler.shuffle=False', *options]
        return [*place.train()[: -len(place.options)], *overrides, *order]

    return command


def broken_test_image(place: Place) -> list[object]:
    folder, overrides = place.data()
    truncate(min((folder / 'val2017').iterdir()))
    return [*place.test(place.trained / 'epoch_2.pth')[: -len(place.options)], *overrides]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def empty_folder(path: Path) -> None:
    for image in path.parent.iterdir():
        image.unlink()


def empty_half(path: Path) -> None:
    for image in sorted(path.parent.iterdir())[:4]:
        image.unlink()


def config(text: str, name: str = 'mine.py') -> Callable[[Place], list[object]]:
    """Train a config of one's own."""
    return lambda place: place.train(
        config=place.write(name, text.replace('TINY', str(place.config)))
    )


def option(*texts: str) -> Callable[[Place], list[object]]:
    """Train with overrides."""
    return lambda place: place.train(*texts)


def words(*command: object) -> Callable[[Place], list[object]]:
    """A command that needs no dataset; DIR stands for the folder of the case."""
    return lambda place: [
        word.replace('DIR', str(place.folder)) if isinstance(word, str) else word
        for word in command
    ]


def file(name: str, content: str | bytes) -> Callable[[Place], list[object]]:
    """Test a file in the place of a checkpoint."""
    return lambda place: place.test(place.write(name, content))


def saved(content: object, name: str = 'saved.pth') -> Callable[[Place], list[object]]:
    """Test what torch saved."""

    def command(place: Place) -> list[object]:
        torch.save(content, place.folder / name)
        return place.test(place.folder / name)

    return command


def cut_checkpoint(place: Place) -> list[object]:
    content = (place.trained / 'epoch_2.pth').read_bytes()
    return place.test(place.write('cut.pth', content[: len(content) // 2]))


def damaged_checkpoint(place: Place) -> list[object]:
    content = bytearray((place.trained / 'epoch_2.pth').read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    return place.test(place.write('damaged.pth', bytes(content)))


def three_classes(content: dict) -> None:
    weights = content['state_dict']
    for name in [name for name in weights if 'cls_branches' in name]:
        weights[name] = weights[name][:3]


def other_names(content: dict) -> None:
    names = ('square', 'dragon', 'circle', 'knight', 'digit', 'rook')
    content['meta']['dataset_meta'] = {'classes': names}


def resume(edit: Callable[[dict], object]) -> Callable[[Place], list[object]]:
    """Resume from the trained checkpoint after a change."""
    return lambda place: place.tool('train', place.config, '--resume', place.checkpoint(edit))


def weights_only(content: dict) -> None:
    for key in [key for key in content if key != 'state_dict']:
        del content[key]


class Malicious:
    """Would write a file."""

    def __reduce__(self) -> tuple:
        return eval, ('open("/tmp/executed", "w")',)


def set_box(box: object) -> Callable[[dict], object]:
    return lambda content: content['annotations'][0].update(bbox=box)


def refuse_duplicates(key: str) -> Callable[[dict], object]:
    return lambda content: content[key].append(copy.deepcopy(content[key][0]))


def missing_folder(place: Place) -> list[object]:
    return [
        'train',
        REAL,
        '--work-dir',
        place.folder,
        '--cfg-options',
        *_roots(place.folder / 'no'),
    ]


def missing_annotations(place: Place) -> list[object]:
    (place.folder / 'annotations').mkdir()
    return ['train', REAL, '--work-dir', place.folder, '--cfg-options', *_roots(place.folder)]


def missing_images(place: Place) -> list[object]:
    command = missing_annotations(place)
    place.write('annotations/instances_train2017.json', '{}')
    return command


def _roots(folder: Path) -> list[str]:
    return [f'{split}_dataloader.dataset.data_root={folder}/' for split in ('train', 'val', 'test')]


def _case(section: str) -> Callable[..., Case]:
    return lambda what, command, *args, **kwargs: Case(section, what, command, *args, **kwargs)


_ARGUMENT, _CONFIG, _DATASET, _IMAGE, _CHECKPOINT, _RESULT = map(
    _case, ('Arguments', 'Configs', 'Datasets', 'Images', 'Checkpoints', 'Own data and results')
)
_CLASSES = 'train_dataloader.dataset.metainfo.classes'
_OTHERS = 'triangle,star,cross,digit'
_INIT = 'model.backbone.init_cfg'
_BATCH = 'train_dataloader.batch_size'

CASES = [
    _ARGUMENT('config with a typing error', words('train', f'{REAL[:-4]}.py')),
    _ARGUMENT('config that does not exist', words('train', 'DIR/none.py')),
    _ARGUMENT('folder as config', words('train', 'configs')),
    _ARGUMENT('flag that does not exist', words('train', TOY, '--speed'), status=2),
    _ARGUMENT(
        'value that a flag does not take',
        words('test', TOY, 'x.pth', '--eval', 'segm'),
        varies=r'choose from.*',
        status=2,
    ),
    _ARGUMENT('override without a value', words('train', TOY, '--cfg-options', 'max_epochs')),
    _ARGUMENT('override with half a value', option('model.backbone.out_indices=[1,')),
    _ARGUMENT('override of a misspelt entry', option('train_dataloader.batch_sise=3')),
    _ARGUMENT('override of an unknown top-level entry', option('epochs=3')),
    _ARGUMENT('override past the end of a list', option('train_pipeline.99.type=Resize')),
    _ARGUMENT('override below a number', option('max_epochs.first=3')),
    _ARGUMENT('work folder that is a file', words('train', TOY, '--work-dir', 'setup.py')),
    _ARGUMENT('resume from no file', words('train', TOY, '--resume', 'none.pth')),
    _ARGUMENT('test of no file', words('test', TOY, 'none.pth')),
    _ARGUMENT('fp16 without a GPU', words('train', TOY, '--amp', 'fp16')),
    _ARGUMENT(
        'launcher without its environment',
        lambda place: [*place.train(), *('--launcher', 'pytorch')],
    ),
    _ARGUMENT('raw detections as JSON', words('test', TOY, 'setup.py', '--out', 'x.json')),
    _ARGUMENT('converting onto a file', words('convert_checkpoint', 'setup.py', 'README.md')),
    _ARGUMENT('converting into no folder', words('convert_checkpoint', 'setup.py', 'DIR/no/x.pth')),
    _CONFIG('syntax error', config('model = dict(\n'), varies=r'SyntaxError.*'),
    _CONFIG('name that is not defined', config("_base_ = 'TINY'\nmax_epochs = EPOCHS\n")),
    _CONFIG('base config that does not exist', config("_base_ = './none.py'\n")),
    _CONFIG(
        'YAML that names Python objects',
        config('model: !!python/object/apply:os.system ["true"]', 'mine.yaml'),
        varies=r'for the tag.*',
    ),
    _CONFIG('unknown backbone', option('model.backbone.type=MPVit'), varies=r'registry\..*'),
    _CONFIG('unknown size of a backbone', option('model.backbone.arch=huge')),
    _CONFIG('unknown argument of a backbone', option('model.backbone.colour=red')),
    _CONFIG('unknown sampler', option('train_dataloader.sampler.type=NoSampler'), r'registry\..*'),
    _CONFIG('unknown optimizer', option('optim_wrapper.optimizer.type=Adamw')),
    _CONFIG('unknown argument of an optimizer', option('optim_wrapper.optimizer.speed=3')),
    _CONFIG('wrong number of classes', option('model.bbox_head.num_classes=7')),
    _CONFIG('batch larger than the dataset', option(f'{_BATCH}=64')),
    _CONFIG('no epoch', option('train_cfg.max_epochs=0')),
    _CONFIG(
        'weights of a backbone that do not exist',
        option(f'{_INIT}.type=Pretrained', f'{_INIT}.checkpoint=no.pth'),
    ),
    _CONFIG('no step in a row may fail', option('default_hooks.finite.max_in_a_row=0')),
    _DATASET('data folder missing', missing_folder),
    _DATASET('annotation file missing', missing_annotations),
    _DATASET('image folder missing', missing_images),
    _DATASET(
        'annotation file of the evaluator missing',
        lambda place: place.test(
            place.trained / 'epoch_2.pth', 'test_evaluator.ann_file=nowhere.json'
        ),
    ),
    _DATASET('JSON that breaks off', annotation_file('{"images": [')),
    _DATASET('empty annotation file', annotation_file('')),
    _DATASET('JSON in UTF-16', annotation_file('{}'.encode('utf-16'))),
    _DATASET('JSON with a byte order mark', annotation_file('{}'.encode('utf-8-sig'))),
    _DATASET('JSON of something else', annotation_file('{"images": []}')),
    _DATASET('list in place of a COCO file', annotation_file('[]')),
    _DATASET('no image', annotations(lambda c: c['images'].clear())),
    _DATASET('no annotation', annotations(lambda c: c['annotations'].clear())),
    _DATASET('no category', annotations(lambda c: c['categories'].clear())),
    _DATASET('class misspelt', option(f'{_CLASSES}=circel,square,{_OTHERS}')),
    _DATASET('classes in another order', option(f'{_CLASSES}=square,circle,{_OTHERS}')),
    _DATASET('box of NaN', annotations(set_box([1, 2, float('nan'), 4]))),
    _DATASET('box of three numbers', annotations(set_box([1, 2, 3]))),
    _DATASET('no box', annotations(lambda c: c['annotations'][0].pop('bbox'))),
    _DATASET(
        'every box outside its image',
        annotations(lambda c: [a.update(bbox=[-9, -9, 5, 5]) for a in c['annotations']]),
    ),
    _DATASET('image id twice', annotations(refuse_duplicates('images'))),
    _DATASET('annotation id twice', annotations(refuse_duplicates('annotations'))),
    _IMAGE('truncated', images(truncate), r'\(\d+ bytes.*?\)'),
    _IMAGE('empty file', images(lambda path: path.write_bytes(b''))),
    _IMAGE('text file named .jpg', images(lambda path: path.write_text('no image')), r'<.*?>'),
    _IMAGE('missing', images(Path.unlink)),
    _IMAGE('folder without any', images(empty_folder)),
    _IMAGE(
        'more than allowed',
        images(empty_half, 'train_dataloader.dataset.max_skipped_images=2'),
    ),
    _IMAGE('truncated, in a test', broken_test_image, r'\(\d+ bytes.*?\)'),
    _CHECKPOINT('empty file', file('x.pth', b'')),
    _CHECKPOINT('web page', file('x.pth', '<!doctype html>')),
    _CHECKPOINT('text', file('x.pth', 'weights')),
    _CHECKPOINT('Git LFS pointer', file('x.pth', 'version https://git-lfs.github.com/spec/v1')),
    _CHECKPOINT('truncated', cut_checkpoint),
    _CHECKPOINT('damaged in the middle', damaged_checkpoint, varies=r'checksum of [^)]*'),
    _CHECKPOINT(
        'other sha256 than its name says', saved({}, 'weights-0123abcd.pth'), r'[0-9a-f]{64}'
    ),
    _CHECKPOINT('pickle that runs code', file('x.pth', pickle.dumps(Malicious()))),
    _CHECKPOINT('checkpoint that runs code', saved({'state_dict': {}, 'meta': Malicious()})),
    _CHECKPOINT('tensor', saved(torch.zeros(1))),
    _CHECKPOINT('another model', saved({'state_dict': {'w': torch.zeros(2)}}), r'\(backb[^)]*\)'),
    _CHECKPOINT(
        'other number of classes', lambda place: place.test(place.checkpoint(three_classes))
    ),
    _CHECKPOINT('resume from weights alone', resume(weights_only)),
    _CHECKPOINT('resume from other classes', resume(other_names)),
    _CHECKPOINT(
        'converting what is not official',
        lambda place: [
            'convert_checkpoint', place.trained / 'epoch_2.pth', place.folder / 'x.pth'
        ],
    ),
    _RESULT('folder of data that does not exist', words('train', TOY, '--data', 'none')),
    _RESULT('dataset to check that does not exist', words('check_dataset', 'none')),
    _RESULT(
        'picture of a format that cannot be drawn',
        words('check_dataset', 'docs', '--picture', 'x.txt'),
    ),
    _RESULT('dataset to convert that does not exist', words('convert_dataset', 'none', 'x')),
    _RESULT('sheets onto a file', words('browse_dataset', TOY, '--out', 'README.md')),
    _RESULT('no image to show', words('browse_dataset', TOY, '--out', 'x', '--count', '0')),
    _RESULT('image to detect in that does not exist', words('infer', TOY, 'setup.py', 'none.jpg')),
    _RESULT(
        'folder without images',
        words('infer', TOY, 'setup.py', 'configs'),
        varies=r'(?<=videos \().*',
    ),
    _RESULT('score that is none', words('infer', TOY, 'setup.py', 'docs', '--threshold', '30')),
    _RESULT(
        'results into a folder in use',
        words('infer', TOY, 'setup.py', 'docs', '--out', 'tests'),
    ),
    _RESULT(
        'format that is not exported',
        words('export', TOY, 'setup.py', '--format', 'tflite'),
        varies=r'choose from.*',
        status=2,
    ),
    _RESULT(
        'export onto a file',
        words('export', TOY, 'setup.py', '--format', 'onnx', '--out', 'README.md'),
    ),
    _RESULT('curves of no training', words('plot', 'curves', 'docs')),
    _RESULT('errors of no evaluation', words('plot', 'errors', 'docs')),
    _RESULT('report of no run', words('report', 'docs')),
    _RESULT(
        'queries on no image',
        words('show_queries', TOY, 'setup.py', 'none.jpg', '--out', 'DIR/x.png'),
    ),
    _RESULT('name of no config', words('model_info', 'mpvit_x_ddetr_50e')),
    _RESULT('size of no image', words('model_info', TOY, '--size', '0', '100')),
    _RESULT('page without a checkpoint', words('app', '--work-dirs', 'tests')),
]  # fmt: skip

"""Bad inputs: each ends in one line with the word that helps, without a traceback."""

import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace as Place

import pytest
import torch

from mpvit.checkpoints.reading import read

REAL = 'configs/deformable_detr/mpvit_s_ddetr_50e.py'
TOY = 'configs/deformable_detr/mpvit_t_ddetr_toy.py'
Command = Callable[[Place], list[object]]


class Malicious:
    """Would write a file."""

    def __reduce__(self) -> tuple:
        return eval, ('open("/tmp/executed", "w")',)


def train(place: Place, *options: object, config: Path | None = None) -> list[object]:
    work = place.folder / 'work'
    return ['train', config or place.config, '--work-dir', work, '--cfg-options', *options]


def option(*texts: str) -> Command:
    """Train the tiny config on the toy dataset with overrides."""
    return lambda place: train(place, *place.options, *texts)


def config(text: str, name: str = 'mine.py') -> Command:
    """Train a config of one's own."""

    def command(place: Place) -> list[object]:
        path = place.folder / name
        path.write_text(text.replace('TINY', str(place.config)))
        return train(place, *place.options, config=path)

    return command


def evaluate(place: Place, checkpoint: object, *options: str) -> list[object]:
    work = place.folder / 'work'
    overrides = [*place.options, *options]
    return ['test', place.config, checkpoint, '--work-dir', work, '--cfg-options', *overrides]


def file(content: object, name: str = 'x.pth') -> Command:
    """Test a file in the place of a checkpoint; what is no text or bytes is saved by torch."""

    def command(place: Place) -> list[object]:
        path = place.folder / name
        if isinstance(content, str):
            path.write_text(content)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        return evaluate(place, path)

    return command


def spoilt(edit: Callable[[bytes], bytes]) -> Command:
    """Test the trained checkpoint after a change of its bytes."""
    return lambda place: file(edit((place.trained / 'epoch_2.pth').read_bytes()))(place)


def changed(edit: Callable[[dict], object], resume: bool = False) -> Command:
    """Test the trained checkpoint, or resume from it, after a change of its content."""

    def command(place: Place) -> list[object]:
        content = read(place.trained / 'epoch_2.pth')
        edit(content)
        tested = file(content)(place)
        return [*option()(place), '--resume', tested[2]] if resume else tested

    return command


def annotation_file(content: str) -> Command:
    """Train on an annotation file."""

    def command(place: Place) -> list[object]:
        path = place.folder / 'train.json'
        path.write_text(content)
        return option(f'train_dataloader.dataset.ann_file={path}')(place)

    return command


def incomplete(*present: str) -> Command:
    """Train a published config on a folder that holds only some of COCO."""

    def command(place: Place) -> list[object]:
        for name in present:
            (place.folder / name).parent.mkdir(exist_ok=True)
            (place.folder / name).write_text('{}')
        root = place.folder if present else place.folder / 'no'
        splits = ('train', 'val', 'test')
        roots = [f'{split}_dataloader.dataset.data_root={root}/' for split in splits]
        return train(place, *roots, 'model.backbone.init_cfg=None', config=REAL)

    return command


def wrong_neck(place: Place) -> Path:
    path = place.folder / 'wrong.py'
    path.write_text(f"_base_ = '{place.config}'\nmodel = dict(neck=dict(in_channels=[256, 288]))")
    return path


def three_classes(content: dict) -> None:
    weights = content['state_dict']
    for name in [name for name in weights if 'cls_branches' in name]:
        weights[name] = weights[name][:3]


def other_names(content: dict) -> None:
    names = ('square', 'dragon', 'circle', 'knight', 'digit', 'rook')
    content['meta']['dataset_meta'] = {'classes': names}


CLASSES = 'train_dataloader.dataset.metainfo.classes'
OTHERS = 'triangle,star,cross,digit'
INIT = 'model.backbone.init_cfg'
ANNOTATIONS = 'annotations/instances_train2017.json'

CLASSIFIER = {
    'mhca_stages.0.mhca_blks.0.cpe.proj.weight': torch.zeros(1),
    'cls_head.cls.weight': torch.zeros(1),
}

# commands that need no dataset: words of their messages, by exit status
COMMANDS: dict[int, dict[str, str]] = {
    1: {
        'train configs': 'configs folder checkpoints',
        'train TOY --amp fp16': '--amp bf16',
        'train TOY --device tpu': '--device tpu cuda:N',
        'train TINY --data TINY': 'tiny.py folder',
        'train TINY --data DIR': 'DIR train',
        'train TINY --train-images DIR': '--data --train-ann',
        'train TOY --pretrained mpvit_smal_in1k': 'mpvit_small_in1k',
        'train TOY --pretrained official': 'leave it out',
        'train TOY --load-from oficial': 'official',
        'train TOY --load-from official': 'mpvit_t_ddetr_toy',
        'test TOY coat_small_in1k': 'backbone detector',
        'test TOY official': 'mpvit_t_ddetr_toy',
        'infer TINY official PHOTO': 'tiny',
        'infer TOY TRAINED PHOTO': 'of another shape beside tiny.py',
        'weights r50_ddetr': 'r50_ddetr_50e',
        'convert_checkpoint official DIR/x.pth': 'config',
        'check_dataset none': 'none',
        'check_dataset DIR': '--train-ann',
        'check_dataset docs --picture DIR/x.txt': 'x.txt .png',
        'browse_dataset TOY --out README.md': 'README.md',
        'browse_dataset TOY --out DIR/x --data DATA --classes sqare': 'sqare square',
        'infer TINY TRAINED none.jpg': 'none.jpg',
        'infer TINY TRAINED DATA/annotations': 'DATA/annotations .jpg',
        'infer TINY TRAINED PHOTO --out DATA': '--out DATA',
        'infer TINY TRAINED PHOTO --out PHOTO': '--out PHOTO',
        'infer TINY TRAINED PHOTO --classes cirlce': 'cirlce circle',
        'infer TINY TRAINED PHOTO --device cuda:7': 'cuda:7',
        'export TINY TRAINED --out none/a.onnx': 'none',
        'export TINY TRAINED --format openvino --out DIR/a.onnx': 'openvino .xml',
        'export TINY TRAINED --size 100 100 --out DIR/a.onnx': '128',
        'export TINY TRAINED --dtype int8 --format aotinductor --out DIR/a.pt2': 'int8 aotinductor',
        'export TINY TRAINED --dtype int8 --format tensorrt --out DIR/a.engine': 'int8 tensorrt',
        'export TINY TRAINED --dtype fp16 --format aotinductor --out DIR/a.pt2': 'fp16 aotinductor',
        'plot curves none': 'none',
        'plot curves docs': 'docs scalars.json',
        'plot curves docs --out x.gif': '.png .svg .pdf',
        'plot errors docs': 'docs mpvit',
        'plot errors setup.py': 'setup.py file',
        'plot errors --ann setup.py --detections none --out DIR/x': 'none',
        'report none': 'none',
        'report docs': 'docs metrics.json',
        'run mmdet/tools/none.py': 'mmdet/tools/none.py',
        'run README.md': 'README.md',
        'show_queries TINY TRAINED none.jpg --out DIR/x.png': 'none.jpg',
        'show_queries TINY TRAINED PHOTO --out DIR/x.png --layer 2': 'layer 2',
        'model_info mpvit_x_ddetr_50e': 'mpvit_xs_ddetr_50e',
        'model_info TOY --device tpu': 'tpu',
        'model_info TOY --device meta': 'meta',
        'model_info configs/deformable_detr/coat_s_ddetr_50e.py --size 31 64': '31x64',
        'model_info TOY --size 90000 90000': '90000x90000',
        'app --work-dirs tests': 'tests CHECKPOINT demo',
        'app TINY none.pth': 'none.pth',
        'app TINY setup.py --images none': '--images none',
        'app TINY setup.py --images configs': 'configs picture',
    },
    2: {
        'train TOY --epochs 0': '--epochs',
        'train TOY --batch-size most': '--batch-size most',
        'train TOY --name a/b': '--name a/b',
        'train TOY --name a --work-dir b': '--name --work-dir',
        'train TOY --from-scratch --pretrained setup.py': '--from-scratch --pretrained',
        'train TOY --from-scratch --load-from setup.py': '--from-scratch --load-from',
        'browse_dataset TOY --out DIR/x --count 0': '--count 1000',
        'infer TINY TRAINED PHOTO --threshold 30': '--threshold 30',
        'infer TINY TRAINED PHOTO --tile 8': '--tile 8',
        'report docs --threshold nan': '--threshold nan',
        'model_info TOY --size 0 100': '--size',
        'test --eval segm TOY': '--eval segm',
        'check_dataset': 'files',
        'check_dataset DIR --train-ann TINY': 'files',
        'check_dataset --train-ann TINY': '--train-ann --train-images',
        'check_dataset DIR --quick --fix a.json': '--quick',
        'check_dataset DIR --fix a.json --fix-val ./a.json': '--fix --fix-val',
        'check_dataset DIR --json a.json --fix a.json': '--json --fix',
        'browse_dataset TOY --out DIR/x --draws 9': '--draws',
        'browse_dataset TOY --out DIR/x --seed -1': '--seed',
        'export TOY setup.py --format tflite': '--format tflite',
        'plot curves docs tests': '--out',
        'plot errors': 'WORK_DIR --ann --detections',
        'plot errors --ann setup.py': '--ann --detections',
        'plot errors docs --images docs': '--images --ann',
        'plot errors --ann setup.py --detections setup.py': '--out',
        'show_queries TINY TRAINED PHOTO --out DIR/x.png --top 0': '--top',
        'model_info': 'CONFIG',
        'model_info TOY --size 100': '--size',
        'app TOY': 'CONFIG CHECKPOINT',
        'app --port 0': '--port',
    },
}
# the others by name: command, and words of its message
CASES: dict[str, tuple] = {
    'a variable of the file': (option('EPOCHS=3'), 'EPOCHS param_scheduler.1.T_max'),
    'a pipeline by its variable': (
        option('train_pipeline.1.prob=0'),
        'train_pipeline train_dataloader.dataset.pipeline',
    ),
    'no place for a flag': (
        lambda place: [*option()(place), '--freeze', 9],
        'frozen_stages 9',
    ),
    'launcher without environment': (
        lambda place: [*option()(place), '--launcher', 'pytorch'],
        '--launcher torchrun',
    ),
    'no model': (config("_base_ = 'TINY'\nmodel = None\n"), 'mine.py model'),
    'no queries': (option('model.num_queries=-1'), 'num_queries -1'),
    'limit of detections': (option('model.test_cfg.max_per_img=[]'), 'does not build'),
    'unknown backbone': (option('model.backbone.type=MPVit'), 'MPVit'),
    'unknown size': (option('model.backbone.arch=huge'), 'huge small'),
    'unknown argument': (option('model.backbone.colour=red'), 'colour'),
    'unknown sampler': (option('train_dataloader.sampler.type=NoSampler'), 'NoSampler'),
    'unknown optimizer': (option('optim_wrapper.optimizer.type=Adamw'), 'Adamw AdamW'),
    'argument of an optimizer': (option('optim_wrapper.optimizer.speed=3'), 'speed'),
    'channels of the neck': (
        option('model.neck.in_channels=32,48'),
        'model.neck.in_channels [32, 48] [32, 40] auto',
    ),
    'too few channels of the neck': (
        lambda place: evaluate(place, place.trained / 'epoch_2.pth', 'model.neck.in_channels=40,'),
        'model.neck.in_channels [40] [32, 40]',
    ),
    'channels of the neck in inference': (
        lambda place: ['infer', wrong_neck(place), place.trained / 'epoch_2.pth', 'docs'],
        'model.neck.in_channels [256, 288] [32, 40]',
    ),
    'number of classes': (option('model.bbox_head.num_classes=7'), 'num_classes 6 7'),
    'batch over the dataset': (option('train_dataloader.batch_size=64'), 'batch_size 8 64'),
    'no epoch': (option('train_cfg.max_epochs=0'), 'max_epochs'),
    'missing backbone': (option(f'{INIT}.type=Pretrained', f'{INIT}.checkpoint=no.pth'), 'no.pth'),
    'no step may fail': (option('default_hooks.finite.max_in_a_row=0'), 'max_in_a_row'),
    'no data folder': (incomplete(), 'DIR/no/ data_root'),
    'no annotation file': (incomplete('some/file'), f'DIR/{ANNOTATIONS} ann_file'),
    'no image folder': (incomplete(ANNOTATIONS), 'DIR/train2017/ data_prefix.img'),
    'no file to evaluate by': (
        lambda place: evaluate(
            place, place.trained / 'epoch_2.pth', 'test_evaluator.ann_file=nowhere.json'
        ),
        'nowhere.json test_evaluator.ann_file',
    ),
    'JSON that breaks off': (annotation_file('{"images": ['), 'train.json'),
    'misspelt class': (option(f'{CLASSES}=circel,square,{OTHERS}'), 'circel circle'),
    'empty checkpoint': (file(b''), 'x.pth empty'),
    'half a checkpoint': (spoilt(lambda content: content[: len(content) // 2]), 'x.pth'),
    'checkpoint that runs code': (
        file({'state_dict': {}, 'meta': Malicious()}),
        'x.pth eval MPVIT_TRUST_CHECKPOINTS=1',
    ),
    'another model': (file({'state_dict': {'w': torch.zeros(2)}}), 'missing w config'),
    'a classifier in place of a detector': (
        file({'model': CLASSIFIER}),
        'classifier detector --pretrained',
    ),
    'other number of classes': (changed(three_classes), 'cls_branches (3,) (6,)'),
    'resume from other classes': (changed(other_names, resume=True), 'dragon load_from'),
    'converting what is not official': (
        lambda place: ['convert_checkpoint', place.trained / 'epoch_2.pth', place.folder / 'x.pth'],
        'epoch_2.pth',
    ),
}


@pytest.fixture
def place(tiny, toy, trained, tmp_path, monkeypatch):
    """The places of a case, in an environment that says nothing."""
    for name in ('RANK', 'MPVIT_TRUST_CHECKPOINTS', 'MPVIT_DEBUG'):
        monkeypatch.delenv(name, raising=False)
    return Place(folder=tmp_path, config=tiny[0], options=tiny[1], toy=toy, trained=trained)


def named(place: Place, text: str) -> list[str]:
    """Words in which capitals stand for the places of a case."""
    names = {
        'TOY': TOY,
        'TINY': place.config,
        'TRAINED': place.trained / 'epoch_2.pth',
        'DATA': place.toy,
        'PHOTO': min((place.toy / 'val2017').iterdir()),
        'DIR': place.folder,
    }
    pattern = rf'\b({"|".join(names)})\b(?=/|$)'
    return [re.sub(pattern, lambda found: str(names[found[1]]), word) for word in text.split()]


@pytest.mark.skipif(torch.cuda.is_available(), reason='two cases are of a machine without a GPU')
@pytest.mark.parametrize('name', CASES)
def test_bad_input(name, place, refused):
    command, helps = CASES[name]
    assert 'Starting' not in refused(*command(place), says=named(place, helps)).out


@pytest.mark.skipif(torch.cuda.is_available(), reason='some cases are of a machine without a GPU')
@pytest.mark.parametrize(
    ('text', 'helps', 'status'),
    [
        pytest.param(text, helps, status, id=text.replace(' ', '-'))
        for status, commands in COMMANDS.items()
        for text, helps in commands.items()
    ],
)
def test_bad_command(text, helps, status, place, refused):
    result = refused(*named(place, text), says=named(place, helps), status=status)
    assert 'Starting' not in result.out


def process(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    """Run Python in a process of its own, as users do."""
    inherited = {key: value for key, value in os.environ.items() if key != 'RANK'}
    command = [sys.executable, *words]
    environment = {**inherited, **environment}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_wrong_flags_answer_at_once(root):
    start = time.monotonic()
    for arguments in (['tools/train.py'], ['tools/test.py', '--eval', 'segm']):
        result = process(root, *arguments)
        assert result.returncode == 2
        assert 'error: ' in result.stderr
        assert 'Traceback' not in result.stderr
    # importing torch alone takes longer than this on the machines the project is meant for
    assert time.monotonic() - start < 4


@pytest.mark.parametrize(
    ('arguments', 'helps'),
    [
        ('train configs/none.py', 'configs/none.py'),
        ('train configs/deformable_detr/mpvit_s_ddetr_50.py', 'mpvit_s_ddetr_50e.py'),
        (f'train {TOY} --cfg-options max_epochs', "--cfg-options 'max_epochs'"),
        (f'train {TOY} --resume none.pth', 'none.pth'),
        (f'train {TOY} --work-dir setup.py', 'setup.py'),
        (f'test {TOY} none.pth', 'none.pth'),
        (f'test {TOY} auto', 'auto'),
        (f'test {TOY} setup.py --out x.json', '--out x.json .pkl'),
        ('convert_checkpoint none.pth new.pth', 'none.pth'),
        ('convert_checkpoint setup.py README.md', 'README.md'),
        ('demo --config none.py', 'none.py'),
        (f'train {TOY} --data none', 'none'),
        (f'train {TOY} --train-ann none.json', 'none.json'),
        (f'test {TOY} setup.py --data setup.py', 'setup.py folder'),
        ('convert_dataset none new', 'none'),
        ('convert_dataset docs tests', 'tests'),
        ('data trees docs', 'docs'),
        (f'infer {TOY} README.md none.jpg', 'none.jpg'),
        ('data toy setup.py', 'setup.py'),
    ],
)
def test_what_arguments_and_files_tell_is_answered_at_once(root, arguments, helps):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    tool, *arguments = arguments.split()
    result = process(root, f'tools/{tool}.py', *arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 1
    assert result.stdout == ''
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith('error: ')
    assert all(word in result.stderr for word in helps.split())
    # on the CPU; a tenth of it in truth, and importing the package takes several times as long
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


@pytest.mark.parametrize(
    ('rank', 'raised', 'lines'),
    [
        ('', '"lost"', ['error: lost']),
        ('', '"lost", every_rank=True', ['error: lost']),
        ('0', '"lost"', ['error: lost']),
        ('3', '"lost", every_rank=True', ['error (rank 3): lost']),
        ('', '"one\\nline", "another"', ['error: one line', 'error: another']),
    ],
)
def test_which_process_speaks_and_a_line_for_each_mistake(root, rank, raised, lines):
    code = (
        'from mpvit.cli._main import behind_the_door\n'
        'from mpvit.errors import UserError as error\n'
        f'def main(): raise error({raised})\n'
        'behind_the_door(main)'
    )
    ranks = {'RANK': rank} if rank else {}
    result = process(root / 'tools', '-c', code, PYTHONPATH=str(root), **ranks)
    assert result.returncode == 1
    assert result.stderr.splitlines() == lines


def test_of_all_processes_that_meet_a_mistake_one_says_it(root):
    code = (
        'from mpvit.cli._main import behind_the_door\n'
        'from mpvit.errors import UserError\n'
        'def main(): raise UserError("lost")\n'
        'behind_the_door(main)'
    )
    run = {**os.environ, 'PYTHONPATH': str(root), 'WORLD_SIZE': '4', 'MASTER_PORT': '99999'}
    started = [
        subprocess.Popen(
            [sys.executable, '-c', code], env={**run, 'RANK': str(rank)}, stderr=subprocess.PIPE
        )
        for rank in range(4)
    ]
    said = [process.communicate()[1].decode() for process in started]
    assert sorted(said) == ['', '', '', 'error: lost\n']
    assert [process.returncode for process in started] == [1] * 4

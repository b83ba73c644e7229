"""From digits to a detector that starts from them, through the tools."""

import json

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from parity_classifier import classifier, official_weights
from PIL import Image
from runs import log_of, metrics_of
from torchvision.transforms import (
    CenterCrop,
    Compose,
    InterpolationMode,
    Normalize,
    Resize,
    ToTensor,
)

from mpvit.checkpoints.reading import read
from mpvit.config.reading import load_config


@pytest.fixture
def digits(tool, tmp_path):
    """Run a tool on a config of digits."""

    def call(name, config, *flags, work='work', options=()):
        places = [f'{s}_dataloader.dataset.data_root={tmp_path}/digits' for s in SPLITS]
        flags = (*flags, '--work-dir', tmp_path / work, '--cfg-options', *places, *options)
        (tmp_path / 'shown.txt').write_text(tool(name, config, *flags).out)
        return tmp_path / work

    yield call
    init_default_scope('mmdet')


SPLITS = ('train', 'val', 'test')


def logged(work, key='accuracy/top1'):
    (scalars,) = work.glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in scalars.read_text().splitlines()]
    return [record[key] for record in records if key in record]


def same(first, second, *entries):
    first, second = read(first), read(second)
    for entry in entries:
        assert first[entry].keys() == second[entry].keys()
        for name, value in first[entry].items():
            assert torch.equal(value, second[entry][name]), (entry, name)


def test_a_short_training_resumes_exactly_is_evaluated_and_starts_a_detector(
    root, digits, tiny, tool, tmp_path
):
    config = root / 'tests' / 'data' / 'tiny_digits.py'
    work = digits('train', config)
    assert (work / 'run.json').is_file()
    shown = (tmp_path / 'shown.txt').read_text()
    assert f'Best top-1 {max(logged(work)):.3f} in ' in shown
    assert 'mpvit train CONFIG --pretrained ' in shown
    assert 'mpvit infer' not in shown
    tested = digits('test', config, work / 'epoch_2.pth', '--eval', 'accuracy', work='test')
    assert metrics_of(tested)['accuracy/top1'] == pytest.approx(logged(work)[-1])

    again = digits('train', config, '--resume', work / 'epoch_1.pth', work='again')
    # the average and what was averaged
    same(work / 'epoch_2.pth', again / 'epoch_2.pth', 'state_dict', 'ema_state_dict')

    start = [
        'model.backbone.init_cfg.type=Pretrained',
        f'model.backbone.init_cfg.checkpoint={work}/epoch_2.pth',
        'train_cfg.max_epochs=1',
    ]
    settings = load_config(tiny[0], start)
    init_default_scope('mmdet')
    detector = MODELS.build(settings.model)
    detector.init_weights()
    weights = read(work / 'epoch_2.pth')['state_dict']
    for name, value in detector.backbone.state_dict().items():
        assert torch.equal(value, weights[f'backbone.{name}']), name
    flags = ('--work-dir', tmp_path / 'detector', '--cfg-options', *tiny[1], *start)
    tool('train', tiny[0], *flags)
    assert f'MPViT initialised from {work}/epoch_2.pth' in log_of(tmp_path / 'detector')


def test_flags_for_detectors_are_refused(root, refused, tmp_path):
    config = root / 'tests' / 'data' / 'tiny_digits.py'
    (tmp_path / 'x.pth').touch()
    for flag in ('--tta', '--classwise'):
        says = [f'{flag} is for detectors', 'of a classifier']
        refused('test', config, tmp_path / 'x.pth', flag, '--work-dir', tmp_path, says=says)


def test_commands_for_detectors_refuse_a_classifier(root, refused, tiny, toy, tmp_path):
    config = root / 'tests' / 'data' / 'tiny_digits.py'
    (tmp_path / 'x.pth').touch()
    for name, *arguments in (
        ('model_info', config),
        (
            'infer',
            config,
            tmp_path / 'x.pth',
            root / 'docs/images/app.png',
            '--out',
            tmp_path / 'o',
        ),
        ('browse_dataset', config, '--out', tmp_path / 'sheets'),
        ('train', config, '--data', toy, '--work-dir', tmp_path),
    ):
        refused(name, *arguments, says=['is of a classifier', 'name one of a detector'])


@pytest.fixture
def four_images(tmp_path):
    """Four images in ImageNet's layout with labels; three are what the official model says."""
    rng = np.random.default_rng(0)
    root = tmp_path / 'imagenet'
    (root / 'val').mkdir(parents=True)
    (root / 'meta').mkdir()
    images = []
    for number, size in enumerate([(300, 260), (260, 300), (500, 375), (90, 120)]):
        noise = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
        images.append(noise.resize(size, Image.Resampling.BICUBIC))
        images[-1].save(root / 'val' / f'{number}.png')
    file = tmp_path / 'mpvit_tiny.pth'
    torch.save({'model': official_weights('mpvit_tiny')}, file)
    preparation = Compose(
        [
            Resize(256, InterpolationMode.BICUBIC),
            CenterCrop(224),
            ToTensor(),
            Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    with torch.no_grad():
        logits = classifier('mpvit_tiny', file)(torch.stack([*map(preparation, images)]))
    labels = logits.argmax(1).tolist()
    labels[2] = int(logits[2].argmin())
    lines = [f'{number}.png {label}\n' for number, label in enumerate(labels)]
    (root / 'meta' / 'val.txt').write_text(''.join(lines))
    return root, file


def test_an_official_file_is_converted_and_evaluated(root, tool, four_images, tmp_path):
    images, official = four_images
    config = root / 'configs' / 'imagenet' / 'mpvit_t_in1k_300e.py'
    converted = tool('convert_checkpoint', official, tmp_path / 'ours.pth', '--config', config)
    assert 'official classifier' in converted.out
    loader = dict(num_workers=0, persistent_workers=False)
    options = [f'test_dataloader.{key}={value}' for key, value in loader.items()]
    options.append(f'test_dataloader.dataset.data_root={images}')
    for file in (official, tmp_path / 'ours.pth'):
        work = tmp_path / f'of_{file.stem}'
        tool('test', config, file, '--work-dir', work, '--cfg-options', *options)
        assert metrics_of(work) == {'accuracy/top1': 75.0, 'accuracy/top5': 75.0}


def test_imagenet_that_is_not_there(root, refused, tmp_path):
    config = root / 'configs' / 'imagenet' / 'mpvit_t_in1k_300e.py'
    says = ['data folder data/imagenet', 'train_dataloader.dataset.data_root']
    refused('train', config, '--work-dir', tmp_path, says=says)
    classes = (
        '--cfg-options',
        'model.head.num_classes=10',
        'model.data_preprocessor.num_classes=9',
    )
    refused(
        'train', config, '--work-dir', tmp_path, *classes, says=['model.head.num_classes is 10']
    )


@pytest.mark.slow
def test_digits_are_learned_and_start_the_toys_detector(root, digits, tool, toy, tmp_path):
    config = root / 'configs' / 'imagenet' / 'mpvit_t_digits.py'
    work = digits('train', config)
    settings = load_config(config)
    init_default_scope('mmpretrain')
    from mmpretrain.registry import MODELS as CLASSIFIERS

    untrained = CLASSIFIERS.build(settings.model)
    untrained.init_weights()
    torch.save({'state_dict': untrained.state_dict()}, tmp_path / 'untrained.pth')
    before = metrics_of(digits('test', config, tmp_path / 'untrained.pth', work='before'))
    after = metrics_of(digits('test', config, work / 'epoch_8.pth', work='after'))
    print(before, after)
    assert before['accuracy/top1'] < 30
    assert after['accuracy/top1'] > 90

    init_default_scope('mmdet')
    few = dict(train_images=8, val_images=6, empty=0.3)  # of the fixture
    spec = [f'{s}_dataloader.dataset.spec.{key}={n}' for s in SPLITS for key, n in few.items()]
    start = [
        *(f'{s}_dataloader.dataset.data_root={toy}' for s in SPLITS),
        *(f'{s}_evaluator.ann_file={toy}/annotations/instances_val2017.json' for s in SPLITS[1:]),
        'model.backbone.init_cfg.type=Pretrained',
        f'model.backbone.init_cfg.checkpoint={work}/epoch_8.pth',
        'train_cfg.max_epochs=1',
        'train_dataloader.batch_size=4',
    ]
    toys = root / 'configs' / 'deformable_detr' / 'mpvit_t_ddetr_toy.py'
    tool('train', toys, '--work-dir', tmp_path / 'detector', '--cfg-options', *start, *spec)
    assert 'MPViT initialised from' in log_of(tmp_path / 'detector')

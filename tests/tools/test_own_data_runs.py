"""Trainings and evaluations on data in foreign layouts, through the tools."""

import json
import re
import shutil
from pathlib import Path

import torch
from own_layouts import LAYOUTS, roboflow
from runs import log_of

SPLITS = ('train', 'val', 'test')


def weights(path):
    return torch.load(path, weights_only=False)['state_dict']


def test_one_command_trains_and_the_run_can_be_repeated_without_it(tool, root, toy, tmp_path):
    data, work = roboflow(toy, tmp_path / 'data'), tmp_path / 'work'
    config = root / 'tests' / 'data' / 'tiny.py'
    # no file is edited; an override has the last word
    options = ['train_cfg.max_epochs=1', 'model.backbone.arch.embed_dims=(16,24,32,48)']
    tool('train', config, '--data', data, '--work-dir', work, '--cfg-options', *options)
    log = log_of(work)
    (line,) = re.findall('Data: .*', log)
    assert f'train 8 images of {data}/train' in line
    assert f'val 6 images of {data}/valid' in line
    assert '6 classes: circle, square' in line
    assert 'in_channels: [32, 48], as the backbone has them, instead of [32, 40]' in log

    flags = ('--data', data, '--work-dir', work, '--cfg-options', options[1])
    tool('test', config, work / 'epoch_1.pth', *flags)
    metrics = (work / 'metrics.json').read_text()

    written = work / 'tiny.py'  # still that of the training
    again = tmp_path / 'again'
    tool('train', written, '--work-dir', again)
    trained, repeated = weights(work / 'epoch_1.pth'), weights(again / 'epoch_1.pth')
    assert all(torch.equal(trained[name], repeated[name]) for name in trained)

    tool('test', written, work / 'epoch_1.pth')
    assert '"config": "' + str(written) in (work / 'metrics.json').read_text()
    numbers = re.compile(r'"metrics".*', re.S)
    assert numbers.findall((work / 'metrics.json').read_text()) == numbers.findall(metrics)


def found(work):
    """Detections in the order of the file's images and categories rather than by their ids."""
    file = json.loads((work / 'metrics.json').read_text())['data']['annotations']
    content = json.loads(Path(file).read_text())
    used = [entry['id'] for entry in content['categories'] if entry['name'] != 'toys']
    images = [entry['id'] for entry in content['images']]
    return [
        (images.index(one['image_id']), used.index(one['category_id']), one['bbox'], one['score'])
        for one in json.loads((work / 'detections.bbox.json').read_text())
    ]


def test_foreign_layouts_train_as_the_reference(tool, tiny, root, toy, tmp_path):
    """The same images, boxes and labels in the same order give the same weights, to the last bit.

    And so the same detections, of which the evaluation makes the AP.
    """
    last = tmp_path / 'reference' / 'epoch_2.pth'
    tool('train', tiny[0], '--work-dir', last.parent, '--cfg-options', *tiny[1])
    tool('test', tiny[0], last, '--work-dir', last.parent, '--cfg-options', *tiny[1])
    reference = found(last.parent)
    assert len(reference) > 100
    config = root / 'tests' / 'data' / 'tiny.py'
    for name, write in LAYOUTS.items():
        data, work = write(toy, tmp_path / name), tmp_path / 'work' / name
        tool('train', config, '--data', data, '--work-dir', work)
        trained, expected = weights(work / 'epoch_2.pth'), weights(last)
        assert all(torch.equal(trained[key], expected[key]) for key in expected), name
        tool('test', config, work / 'epoch_2.pth', '--data', data, '--work-dir', work)
        assert found(work) == reference, name


def test_training_checks_its_data_first(refused, tiny, toy, tmp_path):
    data = shutil.copytree(toy, tmp_path / 'data')
    for path in (data / 'val2017').iterdir():
        path.write_bytes(b'no image')
    words = ['none of 6 images can be read']
    refused('train', tiny[0], '--data', data, '--work-dir', tmp_path / 'work', says=words)
    assert not list((tmp_path / 'work').glob('*.pth'))

"""Trainings and evaluations on data in foreign layouts, through the tools."""

import re
import shutil

import torch
from own_layouts import roboflow
from runs import log_of


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


def test_training_checks_its_data_first(refused, tiny, toy, tmp_path):
    data = shutil.copytree(toy, tmp_path / 'data')
    for path in (data / 'val2017').iterdir():
        path.write_bytes(b'no image')
    words = ['none of 6 images can be read']
    refused('train', tiny[0], '--data', data, '--work-dir', tmp_path / 'work', says=words)
    assert not list((tmp_path / 'work').glob('*.pth'))

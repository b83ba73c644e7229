"""Trainings and evaluations on data in foreign layouts, through the tools."""

import re
import shutil

import pytest
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


@pytest.mark.slow
def test_foreign_layouts_train_to_the_ap_of_the_reference(tool, root, tmp_path):
    """Four trainings of 6 epochs, minutes each: the toy config as it is, and on three layouts."""
    from mpvit.datasets.toy import write_toy_dataset

    config = root / 'configs' / 'deformable_detr' / 'mpvit_t_ddetr_toy.py'
    toy = write_toy_dataset(tmp_path / 'toy')

    def ap(name, data, *options):
        work = tmp_path / 'work' / name
        options = ['train_cfg.max_epochs=6', *options]
        tool('train', config, '--work-dir', work, *data, '--cfg-options', *options)
        found = re.findall(r'coco/bbox_mAP: ([\d.]+)', log_of(work))
        print(f'{name}: AP by evaluation {", ".join(found)}')
        return float(found[-1])

    places = [f'{split}_dataloader.dataset.data_root={toy}' for split in SPLITS]
    truth = f'{toy}/annotations/instances_val2017.json'
    places += [f'{split}_evaluator.ann_file={truth}' for split in ('val', 'test')]
    reference = ap('reference', [], *places)
    assert reference > 0.2
    for name, write in LAYOUTS.items():
        data = ['--data', write(toy, tmp_path / name)]
        assert ap(name, data) == pytest.approx(reference, abs=0.03)


def test_training_checks_its_data_first(refused, tiny, toy, tmp_path):
    data = shutil.copytree(toy, tmp_path / 'data')
    for path in (data / 'val2017').iterdir():
        path.write_bytes(b'no image')
    words = ['none of 6 images can be read']
    refused('train', tiny[0], '--data', data, '--work-dir', tmp_path / 'work', says=words)
    assert not list((tmp_path / 'work').glob('*.pth'))

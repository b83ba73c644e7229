"""From a checkpoint and a folder of images to an exported file, without an argument to look up."""

import json

import pytest
from own_layouts import roboflow
from runs import log_of


@pytest.fixture(scope='module')
def tuned(trained, toy, tmp_path_factory):
    """Work folder of a tiny detector that was fine-tuned on a folder of images."""
    from mpvit.cli._main import run

    data = roboflow(toy, tmp_path_factory.mktemp('tuned') / 'data')
    work = data.parent / 'work'
    options = 'console_log_level=INFO'
    words = [trained / 'epoch_2.pth', '--preset', 'finetune', '--data', data, '--epochs', '2']
    run('train', list(map(str, [*words, '--work-dir', work, '--cfg-options', options])))
    return work


def test_it_starts_from_the_checkpoint(tuned, trained):
    log = log_of(tuned)
    assert f'from the checkpoint {trained}/epoch_2.pth' in log
    assert 'Fine-tuning on' in log
    assert 'requires_grad=False' not in log


def test_a_work_folder_stands_for_its_best_checkpoint(tuned, tool, tmp_path):
    (best,) = tuned.glob('best_*.pth')
    tool('test', tuned)
    assert json.loads((tuned / 'metrics.json').read_text())['checkpoint'] == str(best)
    images = next(tuned.parent.glob('data/valid'))
    tool('infer', tuned, images, '--out', tmp_path / 'found', '--no-pictures')
    assert (tmp_path / 'found' / 'detections.json').is_file()


def test_a_folder_without_checkpoints(refused, tmp_path):
    refused('test', 'mpvit_t_ddetr_toy', tmp_path, says=['without checkpoints'])
    refused('test', tmp_path, tmp_path / 'x.pth', says=['without checkpoints'])


def test_a_work_folder_resumes_itself(tuned, tool):
    before = sorted(tuned.glob('epoch_*.pth'))
    tool('train', tuned, '--resume')  # to its end, which was reached
    assert sorted(tuned.glob('epoch_*.pth')) == before
    assert 'resumed' in log_of(tuned)


def test_weights_of_a_backbone_are_no_start(refused, trained):
    words = (trained / 'epoch_2.pth', '--preset', 'finetune', '--from-scratch')
    refused('train', *words, says=['trained detector'], status=2)


def test_without_weights_to_start_from(refused, toy, tmp_path):
    data = roboflow(toy, tmp_path / 'data')
    words = ('mpvit_t_ddetr_50e', '--preset', 'finetune', '--data', data)
    refused('train', *words, says=['--load-from', 'mpvit_t_ddetr_50e'])

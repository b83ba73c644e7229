"""Official files, other classes and foreign files through the tools, as a user meets them."""

import json

import parity_fill
import pytest
import torch
from mmengine.config import Config
from runs import metrics_of

from mpvit.checkpoints.reading import read
from mpvit.config.literals import literal_entries


@pytest.fixture(scope='module')
def official(trained, tmp_path_factory):
    """The trained tiny model as an official file."""
    from mpvit.checkpoints.conversion import convert_file

    path = tmp_path_factory.mktemp('official') / 'tiny.pth'
    convert_file(trained / 'epoch_2.pth', path, to='official')
    return path


def test_official_file_evaluates_as_ours(tiny_run, trained, official, tmp_path):
    for name, file in (('ours', trained / 'epoch_2.pth'), ('official', official)):
        result = tiny_run('test', file, work=tmp_path / name)
    assert metrics_of(tmp_path / 'ours') == metrics_of(tmp_path / 'official')
    assert 'official detector' in result.out + result.err


def test_official_file_in_mmdets_own_door(tiny, trained, official):
    from mmdet.apis import init_detector

    config, _ = tiny
    found = init_detector(str(config), str(official), device='cpu', palette='coco').state_dict()
    expected = read(trained / 'epoch_2.pth')['state_dict']
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_official_file_cannot_be_resumed(tiny_run, refused, official):
    words = ['cannot resume: the checkpoint holds weights only', 'load_from=FILE']
    tiny_run('train', '--resume', official, run=refused, says=words)


def test_resuming_executes_no_config_of_the_file(tiny_run, trained, tmp_path):
    checkpoint = read(trained / 'epoch_2.pth')
    target = tmp_path / 'executed'
    checkpoint['meta']['config'] = f'open({str(target)!r}, "w")'
    torch.save(checkpoint, tmp_path / 'x.pth')
    tiny_run('train', '--resume', tmp_path / 'x.pth')
    assert not target.exists()


@pytest.fixture
def stranger(trained, tmp_path):
    """A checkpoint whose config was edited: ``stranger(edit)``."""

    def made(edit):
        checkpoint, path = read(trained / 'epoch_2.pth'), tmp_path / 'stranger' / 'x.pth'
        entries = literal_entries(checkpoint['meta']['cfg'])
        edit(entries)
        checkpoint['meta']['cfg'] = Config(entries).pretty_text
        path.parent.mkdir()
        torch.save(checkpoint, path)
        return path

    return made


def test_a_config_in_a_checkpoint_writes_in_the_work_folder_only(stranger, tool, tmp_path):
    own = tmp_path / 'own.py'
    own.write_text('mine')

    def edit(entries):
        backend = dict(type='LocalVisBackend', config_save_file=str(own))
        backend |= dict(scalar_save_file=f'{tmp_path}/a.json', img_save_dir='../../../b')
        entries['visualizer']['vis_backends'] = [backend]
        entries['test_evaluator']['outfile_prefix'] = f'{tmp_path}/c'
        entries['default_hooks']['logger']['out_dir'] = f'{tmp_path}/d'

    tool('test', stranger(edit), '--work-dir', tmp_path / 'work')
    assert own.read_text() == 'mine'
    assert {path.name for path in tmp_path.iterdir()} == {'own.py', 'stranger', 'work'}


def test_a_config_in_a_checkpoint_draws_no_dataset(stranger, refused, tmp_path):
    target = tmp_path / 'drawn'

    def edit(entries):
        entries['test_dataloader']['dataset']['data_root'] = str(target)

    says = [f'data folder {target} not found']
    refused('test', stranger(edit), '--work-dir', tmp_path / 'work', says=says)
    assert not target.exists()


def test_a_fault_of_a_config_in_a_checkpoint_names_the_checkpoint(stranger, refused, tmp_path):
    path = stranger(lambda entries: entries['env_cfg']['mp_cfg'].update(opencv_num_threads=10**30))
    refused('test', path, '--work-dir', tmp_path / 'work', says=[f'the config in {path} does not'])


def test_fine_tuning_keeps_classes_of_the_same_name(tiny_run, trained, tmp_path):
    checkpoint, file = read(trained / 'epoch_2.pth'), tmp_path / 'other.pth'
    names = ('square', 'dragon', 'circle', 'knight', 'digit', 'rook')
    checkpoint['meta']['dataset_meta'] = {'classes': names}
    torch.save(checkpoint, file)
    options = ['train_cfg.max_epochs=1', f'load_from={file}', 'optim_wrapper.optimizer.lr=0']
    result = tiny_run('train', options=options)
    line = (
        'Class layers: 3 of 6 classes keep their weights by name (circle, square, digit); '
        '3 start from scratch (triangle, star, cross).'
    )
    assert line in result.out + result.err
    old = checkpoint['state_dict']['bbox_head.cls_branches.0.bias']
    new = read(tmp_path / 'work' / 'epoch_1.pth')['state_dict']['bbox_head.cls_branches.0.bias']
    # circle, square, triangle, star, cross, digit; the learning rate was 0
    expected = [old[2], old[0], -4.595, -4.595, -4.595, old[4]]
    assert new.tolist() == pytest.approx([float(value) for value in expected], abs=1e-3)


def test_convert_there_and_back(tool, refused, root, tmp_path):
    keys = json.loads((root / 'tests/data/parity/keys/detector_r50.json').read_text())
    values = parity_fill.fill_state_dict(keys['keys'], keys['aliases'], seed=0)
    weights = {name: torch.from_numpy(value) for name, value in values.items()}
    source = tmp_path / 'official.pth'
    torch.save({'model': weights}, source)
    config = 'configs/deformable_detr/r50_ddetr_50e.py'
    result = tool('convert_checkpoint', source, tmp_path / 'ours.pth', '--config', config)
    assert 'official detector: 561 tensors matched' in result.out
    tool('convert_checkpoint', tmp_path / 'ours.pth', tmp_path / 'b.pth', '--to', 'official')
    back = torch.load(tmp_path / 'b.pth', weights_only=True)['model']
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], value) for name, value in weights.items())
    theirs = tmp_path / 'model.safetensors'
    tool('convert_checkpoint', tmp_path / 'ours.pth', theirs, '--to', 'huggingface')
    result = tool('convert_checkpoint', theirs, tmp_path / 'd.pth', '--config', config)
    assert 'Hugging Face detector' in result.out

    other = 'configs/deformable_detr/r50_ddetr_two_stage_50e.py'
    for words, says in (
        ((tmp_path / 'c.pth', '--config', other), ['of another model than the config', 'missing']),
        ((tmp_path / 'c.pth', '--sha256', '0' * 64), ['has the sha256', 'download it again']),
        ((source,), ['exists already']),
    ):
        refused('convert_checkpoint', source, *words, says=says)
    assert not (tmp_path / 'c.pth').exists()

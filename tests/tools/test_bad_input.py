"""A user's mistake ends in one clear line, a status that is not 0, and no traceback."""

import os
import resource
import subprocess
import sys
import time

import pytest
import torch

REAL = 'configs/deformable_detr/mpvit_s_ddetr_50e.py'
TOY = 'configs/deformable_detr/mpvit_t_ddetr_toy.py'


@pytest.fixture
def coco(tmp_path):
    """A COCO folder of which parts are missing."""
    (tmp_path / 'annotations').mkdir()
    return tmp_path


def assert_one_line(result, *messages):
    assert result.status == 1
    last = result.err.strip().splitlines()[-1]
    assert last.startswith('error: ')
    assert 'Traceback' not in result.out + result.err
    for message in messages:
        assert message in last


def roots(folder):
    return [f'{split}_dataloader.dataset.data_root={folder}/' for split in ('train', 'val', 'test')]


def test_missing_data_folder(tool, tmp_path):
    result = tool('train', REAL, '--work-dir', tmp_path)
    assert_one_line(
        result, 'data folder data/coco/ not found', 'train_dataloader.dataset.data_root'
    )


def test_missing_annotation_file(tool, coco):
    result = tool('train', REAL, '--work-dir', coco, '--cfg-options', *roots(coco))
    assert_one_line(
        result, 'annotation file', 'instances_train2017.json not found', 'train_dataloader'
    )


def test_missing_image_folder(tool, coco):
    (coco / 'annotations' / 'instances_train2017.json').write_text('{}')
    result = tool('train', REAL, '--work-dir', coco, '--cfg-options', *roots(coco))
    assert_one_line(result, 'image folder', 'train2017', 'data_prefix.img')


def test_missing_annotation_file_of_the_evaluator(tool, tiny, trained, tmp_path):
    config, places = tiny
    options = [*places, 'test_evaluator.ann_file=nowhere.json']
    result = tool(
        'test', config, trained / 'epoch_2.pth', '--work-dir', tmp_path, '--cfg-options', *options
    )
    assert_one_line(result, 'annotation file nowhere.json not found', 'test_evaluator.ann_file')


def test_unknown_config(tool):
    result = tool('train', 'configs/deformable_detr/mpvit_s_ddetr_50.py')
    assert_one_line(result, 'not found; did you mean configs/deformable_detr/mpvit_s_ddetr_50e.py')


def test_missing_checkpoint(tool):
    assert_one_line(tool('test', TOY, 'none.pth'), 'checkpoint none.pth not found')
    assert_one_line(tool('train', TOY, '--resume', 'none.pth'), 'checkpoint none.pth not found')


def test_checkpoint_of_another_model(tool, tiny, tmp_path):
    config, places = tiny
    path = tmp_path / 'other.pth'
    torch.save(dict(state_dict=torch.nn.Linear(2, 2).state_dict()), path)
    result = tool('test', config, path, '--work-dir', tmp_path, '--cfg-options', *places)
    assert_one_line(result, 'of another model than the config', 'missing', '2 unexpected (weight')


def test_checkpoint_of_the_same_model_with_other_classes(tool, tiny, trained, tmp_path):
    config, places = tiny
    checkpoint = torch.load(trained / 'epoch_2.pth', weights_only=False)
    weights = checkpoint['state_dict']
    for name in [n for n in weights if 'cls_branches' in n]:
        weights[name] = weights[name][:3]
    torch.save(checkpoint, tmp_path / 'three.pth')
    result = tool(
        'test', config, tmp_path / 'three.pth', '--work-dir', tmp_path, '--cfg-options', *places
    )
    assert_one_line(result, 'of another shape', '(3, 128) instead of (6, 128)')


def test_misspelt_override(tool, tiny):
    result = tool('train', tiny[0], '--cfg-options', 'train_dataloader.batch_sise=3')
    assert_one_line(result, "'batch_sise'", "did you mean 'batch_size'?")


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('model.backbone.type=MPVit', 'MPVit is not in the mmdet::model registry'),
        ('model.backbone.arch=huge', "unknown MPViT arch 'huge'"),
        ('model.backbone.colour=red', "unexpected keyword argument 'colour'"),
        ('optim_wrapper.optimizer.speed=3', "unexpected keyword argument 'speed'"),
        ('train_dataloader.sampler.type=NoSampler', 'NoSampler is not in'),
    ],
)
def test_config_that_does_not_build(tool, tiny, tmp_path, option, message):
    config, places = tiny
    result = tool('train', config, '--work-dir', tmp_path, '--cfg-options', *places, option)
    assert_one_line(result, 'does not build', message)


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('train_dataloader.batch_size=64', '8 images do not fill one of 64'),
        ('train_cfg.max_epochs=0', 'asks for no training step'),
        (
            'train_dataloader.dataset.metainfo.classes=circel,square,triangle,star,cross,digit',
            "has no category 'circel'; did you mean 'circle'?",
        ),
        (
            'train_dataloader.dataset.metainfo.classes=square,circle,triangle,star,cross,digit',
            "another order than metainfo; set metainfo.classes to ('circle', 'square',",
        ),
        ('model.backbone.init_cfg.checkpoint=none.pth', 'none.pth'),
    ],
)
def test_training_that_could_only_fail_later(tool, tiny, tmp_path, option, message):
    config, places = tiny
    more = [option]
    if 'init_cfg' in option:
        more.append('model.backbone.init_cfg.type=Pretrained')
    result = tool('train', config, '--work-dir', tmp_path, '--cfg-options', *places, *more)
    assert_one_line(result, message)


def test_work_folder_that_is_a_file(tool, tiny, tmp_path):
    (tmp_path / 'file').write_text('')
    result = tool('train', tiny[0], '--work-dir', tmp_path / 'file')
    assert_one_line(result, 'is a file; choose another --work-dir')


@pytest.mark.parametrize(
    ('text', 'message'), [('{"images": [', 'no valid JSON'), ('{"images": []}', 'not in COCO')]
)
def test_broken_annotation_file(tool, tiny, tmp_path, text, message):
    config, places = tiny
    (tmp_path / 'broken.json').write_text(text)
    option = f'train_dataloader.dataset.ann_file={tmp_path / "broken.json"}'
    result = tool('train', config, '--work-dir', tmp_path, '--cfg-options', *places, option)
    assert_one_line(result, 'broken.json', message)


@pytest.mark.skipif(torch.cuda.is_available(), reason='needs a machine without a GPU')
@pytest.mark.parametrize('launcher', ['slurm', 'pytorch'])
def test_launcher_without_its_environment(tool, tiny, tmp_path, launcher, monkeypatch):
    for name in ('RANK', 'SLURM_PROCID'):
        monkeypatch.delenv(name, raising=False)
    config, places = tiny
    result = tool(
        'train', config, '--work-dir', tmp_path, '--launcher', launcher, '--cfg-options', *places
    )
    assert_one_line(result, f'--launcher {launcher}')


def test_unknown_optimizer(tool, tiny):
    config, places = tiny
    option = 'optim_wrapper.optimizer.type=Adamw'
    result = tool('train', config, '--cfg-options', *places, option)
    assert_one_line(result, 'there is no optimizer Adamw; did you mean AdamW?')


def test_wrong_number_of_classes(tool, tiny):
    config, places = tiny
    result = tool('train', config, '--cfg-options', *places, 'model.bbox_head.num_classes=7')
    assert_one_line(result, 'has 6 classes (circle, square, triangle, ...)', 'num_classes is 7')


@pytest.mark.skipif(torch.cuda.is_available(), reason='needs a machine without a GPU')
def test_amp_without_a_gpu(tool, tiny):
    assert_one_line(tool('train', tiny[0], '--amp', 'fp16'), '--amp fp16 needs a GPU')


def test_out_must_be_a_pickle(tool, tiny, trained):
    checkpoint = trained / 'epoch_2.pth'
    assert_one_line(tool('test', tiny[0], checkpoint, '--out', 'x.json'), '--out x.json')


def test_wrong_flags_answer_at_once_and_without_a_traceback(root):
    start = time.monotonic()
    for arguments in (['tools/train.py'], ['tools/test.py', 'c', 'x', '--eval', 'segm']):
        result = subprocess.run(
            [sys.executable, *arguments], cwd=root, capture_output=True, text=True, check=False
        )
        assert result.returncode == 2
        assert 'error: ' in result.stderr
        assert 'Traceback' not in result.stderr
    # importing torch alone takes longer than this on the machines the project is meant for
    assert time.monotonic() - start < 4


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['train', 'configs/deformable_detr/mpvit_s_ddetr_50.py'], 'mpvit_s_ddetr_50e.py?'),
        (['train', TOY, '--cfg-options', 'max_epochs'], "key=value, got 'max_epochs'"),
        (['train', TOY, '--resume', 'none.pth'], 'checkpoint none.pth not found'),
        (['train', TOY, '--work-dir', 'setup.py'], 'work folder setup.py is a file'),
        (['test', TOY, 'none.pth'], 'checkpoint none.pth not found'),
        (['test', TOY, 'auto'], 'checkpoint auto not found'),
        (['test', TOY, 'setup.py', '--out', 'x.json'], '--out x.json'),
        (['convert_checkpoint', 'none.pth', 'new.pth'], 'none.pth'),
        (['convert_checkpoint', 'setup.py', 'README.md'], 'README.md exists already'),
        (['demo', '--config', 'none.py'], 'config none.py not found'),
        (['train', TOY, '--data', 'none'], 'folder none not found'),
        (['train', TOY, '--train-ann', 'none.json'], 'annotation file none.json not found'),
        (['test', TOY, 'setup.py', '--data', 'setup.py'], 'setup.py is a file; name the folder'),
        (['convert_dataset', 'none', 'new'], 'folder none not found'),
        (['convert_dataset', 'docs', 'tests'], 'tests exists already'),
    ],
)
def test_what_arguments_and_files_tell_is_answered_at_once(root, arguments, message):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(
        [sys.executable, f'tools/{arguments[0]}.py', *arguments[1:]],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 1
    assert result.stdout == ''
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith('error: ')
    assert message in result.stderr
    # on the CPU; a tenth of it in truth, and importing the package takes several times as long
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


@pytest.mark.parametrize(
    ('rank', 'every_rank', 'text'),
    [
        (None, False, 'error: lost'),
        (None, True, 'error: lost'),
        ('0', False, 'error: lost'),
        ('3', False, ''),  # the first process says it
        ('3', True, 'error (rank 3): lost'),
    ],
)
def test_which_process_of_a_distributed_run_speaks(root, rank, every_rank, text):
    environment = {key: value for key, value in os.environ.items() if key != 'RANK'}
    code = (
        'import _cli\n'
        'error = _cli.light("errors").UserError\n'
        f'def main(): raise error("lost", every_rank={every_rank})\n'
        '_cli.run(main)'
    )
    result = subprocess.run(
        [sys.executable, '-c', code],
        cwd=root / 'tools',
        env={**environment, 'PYTHONPATH': str(root), **({'RANK': rank} if rank else {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.strip() == text


def test_several_mistakes_are_a_line_each(root):
    code = (
        'import _cli\n'
        'error = _cli.light("errors").UserError\n'
        'def main(): raise error("one\\nline", "another")\n'
        '_cli.run(main)'
    )
    result = subprocess.run(
        [sys.executable, '-c', code],
        cwd=root / 'tools',
        env={**os.environ, 'PYTHONPATH': str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.splitlines() == ['error: one line', 'error: another']


def test_message_reaches_the_terminal_of_a_real_process(root):
    result = subprocess.run(
        [sys.executable, 'tools/train.py', 'configs/none.py'],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith('error: config configs/none.py not')
    assert 'Traceback' not in result.stderr
    assert result.stdout == ''

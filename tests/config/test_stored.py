"""The config that a checkpoint carries: read as data, whatever it says."""

import copy

import pytest
import torch
from mmengine.config import Config

from mpvit.config.names import shipped_configs
from mpvit.config.reading import load_config
from mpvit.config.stored import config_name, renamed, stored_config
from mpvit.errors import UserError

ONE = 'a = 1\nmodel = dict(x=-inf)\n'


def checkpoint(folder, text, name='epoch_1.pth'):
    torch.save({'state_dict': {}, 'meta': {'cfg': text}}, folder / name)
    return folder / name


@pytest.mark.parametrize('name', shipped_configs())
def test_every_entry_of_a_written_config_comes_back(name, tmp_path):
    config = load_config(name)
    config.dump(tmp_path / 'config.py')
    found = stored_config(checkpoint(tmp_path, (tmp_path / 'config.py').read_text()))
    written = Config.fromfile(tmp_path / 'config.py', import_custom_modules=False)
    expected = dict(written.to_dict(), work_dir=str(tmp_path), load_from=None, resume=False)
    assert found.to_dict() == expected


def test_it_does_not_say_where_to_write(tmp_path):
    places = "hooks = [dict(out_dir='/etc', a=dict(save_dir='/etc', b=1))]\n"
    assert stored_config(checkpoint(tmp_path, ONE + places)).hooks == [dict(a=dict(b=1))]


def test_the_config_inside_goes_before_the_one_beside(tmp_path):
    (tmp_path / 'other.py').write_text(ONE.replace('1', '2'))
    assert stored_config(checkpoint(tmp_path, ONE)).a == 1
    (tmp_path / 'model.onnx').write_bytes(b'')
    found = stored_config(tmp_path / 'model.onnx')  # which holds none
    assert (found.a, found.work_dir) == (2, str(tmp_path))


def test_alone_it_writes_where_a_config_of_its_name_would(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'x').mkdir()
    path = checkpoint(tmp_path / 'x', ONE, 'best.pth')
    assert load_config(path).work_dir == 'work_dirs/best'


def test_no_config_at_all(tmp_path):
    torch.save({'model': {}}, tmp_path / 'official.pth')
    with pytest.raises(UserError, match='name the config first'):
        stored_config(tmp_path / 'official.pth')


@pytest.mark.parametrize(('text', 'left'), [
    ("visualizer = dict(vis_backends=[dict(type='LocalVisBackend', config_save_file='{}', "
     "img_save_dir='{}', scalar_save_file='../x', save_dir='{}', unheard_of='{}')])",
     dict(visualizer=dict(vis_backends=[dict(type='LocalVisBackend')]))),
    ("visualizer = dict(vis_backends=[dict(type='WandbTracker', init_kwargs=dict(dir='{}', "
     "project='p', entity='evil'), log_code_name='x')])",
     dict(visualizer=dict(vis_backends=[
         dict(type='WandbTracker', init_kwargs=dict(project='p'))]))),
    ("visualizer = dict(vis_backends=[dict(type='MLflowTracker', tracking_uri='http://evil')])",
     dict(visualizer=dict(vis_backends=[dict(type='MLflowTracker')]))),
    ("test_evaluator = dict(type='CocoBoxMetric', ann_file='a', format_only=True, "
     "outfile_prefix='{}', collect_dir='{}', backend_args=dict(backend='local', x='{}'))",
     dict(test_evaluator=dict(type='CocoBoxMetric', ann_file='a', format_only=True,
                              backend_args=dict(backend='local')))),
    ('test_evaluator = [dict(outfile_prefix=3)]', dict(test_evaluator=[{}])),
    ("default_hooks = dict(checkpoint=dict(out_dir='{}', filename_tmpl='{}', interval=2, "
     "save_best='coco/bbox_mAP', file_client_args=dict(root='{}')))",
     dict(default_hooks=dict(checkpoint=dict(interval=2, save_best='coco/bbox_mAP',
                                             file_client_args={})))),
    ("custom_hooks = [dict(type='EMAHook', new=b'{}', news=['{}', 1], other={{'{}'}})]",
     dict(custom_hooks=[dict(type='EMAHook', news=[1], other=set())])),
    ("env_cfg = dict(resource_limit='x', cudnn_benchmark=True, "
     "dist_cfg=dict(backend='nccl', init_method='file://{}'))",
     dict(env_cfg=dict(cudnn_benchmark=True, dist_cfg=dict(backend='nccl')))),
    ("log_level = 'NOPE'\nexperiment_name = '{}'\ncfg = '{}'", {}),
    ("work_dir = '{}'\nload_from = 'http://evil/x.pth'\nresume = '{}'", {}),
    ("visualizer = dict(vis_backends=[dict(type='LocalVisBackend', name='http://evil')])",
     dict(visualizer=dict(vis_backends=[dict(type='LocalVisBackend')]))),
    ("train_dataloader = dict(dataset=dict(type='ToyDataset', data_root='/etc', draw=True))",
     dict(train_dataloader=dict(dataset=dict(type='ToyDataset', data_root='/etc', draw=False)))),
    ("train_dataloader = dict(dataset=dict(type='DigitsDataset', data_root='', split='val'))",
     dict(train_dataloader=dict(dataset=dict(type='DigitsDataset', data_root='', split='val',
                                             draw=False)))),
    ("toy = dict(type='ToyDataset', data_root='data/toy/', spec=dict(train_images=99999999))",
     dict(toy=dict(type='ToyDataset', data_root='data/toy/', spec=dict(train_images=99999999),
                   draw=False))),
    ("toy = dict(type='ToyDataset', data_root='data/toy/../../x')",
     dict(toy=dict(type='ToyDataset', data_root='data/toy/../../x', draw=False))),
    ("toy = dict(type='ToyDataset', data_root='data/toy/', draw=True)",
     dict(toy=dict(type='ToyDataset', data_root='data/toy/'))),
    ("train_dataloader = dict(x=dict(init_cfg=dict(type='Pretrained', checkpoint='http://evil')))",
     dict(train_dataloader=dict(x=dict(init_cfg=None)))),
])  # fmt: skip
def test_it_cannot_say_where_to_write_or_whom_to_ask(text, left, tmp_path):
    """Of every part: absolute paths, ``..``, addresses, and names that no part has yet."""
    canary = str(tmp_path / 'canary')
    found = stored_config(checkpoint(tmp_path, 'model = dict(x=1)\n' + text.format(*[canary] * 9)))
    expected = dict(model=dict(x=1), work_dir=None, load_from=None, resume=False) | left
    assert found.to_dict() == expected


def test_messages_name_the_checkpoint_that_holds_it(tmp_path):
    found = stored_config(checkpoint(tmp_path, ONE))
    held = f'the config in {tmp_path}/epoch_1.pth'
    assert config_name(found) == config_name(copy.deepcopy(found)) == held
    assert config_name(renamed(found, 'x_test.py')) == held
    (tmp_path / 'a.py').write_text(ONE)
    assert config_name(stored_config(tmp_path / 'epoch_1.pth')) == held
    assert config_name(Config({}, 'a = 1', 'a.py')) == 'config a.py'


@pytest.mark.parametrize(('text', 'words'), [
    ("model = dict(backbone=dict(cache_dir='/x'))", 'model.backbone.cache_dir is'),
    ("model = dict(backbone=dict(pretrained_cfg=dict(file='/x')))", 'pretrained_cfg.file is'),
    ("model = dict(a=[dict(b=[b'/x'])])", 'model.a.b is'),
    ("test_dataloader = dict(dataset=dict(backend_args=dict(sys_path=['/x'])))", 'sys_path is'),
    ("test_dataloader = dict(dataset=dict(backend_args=dict(db_path='x')))", 'db_path is'),
    ("tta_pipeline = [dict(file_client_args=dict(path_mapping={'a': '/x'}))]", 'path_mapping.a is'),
    ("val_dataloader = dict(dataset=dict(ann_file='http://evil/a.json'))", 'dataset.ann_file is'),
    ("val_dataloader = dict(dataset=dict(data_root='s3://evil'))", 'dataset.data_root is'),
    ("val_dataloader = dict(dataset=dict(metainfo=dict(classes='/x')))", "classes is '/x', for"),
    ("val_dataloader = dict(dataset=dict(classes='x'))", "classes is 'x', for which a file"),
    ("a = dict(metainfo=[dict(palette='x')])", "palette is 'x', for which a file"),
    ("""a = {"b': __import__('os').system('touch executed'), 'c": 1, '1': 2}""", 'no name of an'),
    ("a = {'b\\n': 1}", 'no name of an'),
    ("import os\nos.system('touch executed')", 'line 1 is more than'),
    ("a = __import__('os').system('touch executed')", 'malformed node'),
    ("a = open('executed', 'w')", 'malformed node'),
    ("a = dict(type='os.system', command='touch executed')", "names 'os.system'"),
    ("a = [dict(b=dict(type='mmengine.call_command', cmd=['touch', 'executed']))]", 'harmless'),
    ("a = dict(nms=dict(type='__import__(\"os\").system(\"touch executed\")'))", 'harmless'),
    ("a = dict(type='antigravity')", 'harmless'),
    ("a = dict(constructor='evil.X')", 'harmless'),
    ("custom_imports = dict(imports=['mpvit.__main__'])", 'which is code'),
    ("custom_imports = dict(imports=['evil'])", 'imports the module evil'),
    ("custom_imports = dict(imports='evil')", 'imports the module evil'),
    ("default_scope = 'evil'", "scope 'evil'"),
    ('a = (', 'never closed'),
    ('a = {[1]}', 'unhashable'),
    ('a = ' + '-' * 50000 + '1', '(MemoryError|RecursionError|too)'),
    ('a = 1', 'model'),
    ('a = b = 1', 'more than a name'),
    ('a = dict(**dict(b=1))', 'malformed node'),
    ('a = ' + '[' * 500 + ']' * 500, 'too many'),
])  # fmt: skip
def test_nothing_in_it_is_executed(text, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words) as caught:
        load_config(checkpoint(tmp_path, text))
    assert 'name the config first' in str(caught.value)
    assert not (tmp_path / 'executed').exists()

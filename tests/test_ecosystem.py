"""Where mim, mmengine and mmdet find this project: metafiles, names, scopes."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from mmdet.apis import DetInferencer, inference_detector
from mmengine.hub import get_config as hub_config
from mmengine.registry import MODELS, TRANSFORMS, DefaultScope

import mpvit
from mpvit.config.names import find_config, shipped_configs
from mpvit.config.reading import load_config
from mpvit.datasets.data_files import DataFiles
from mpvit.engine.test import evaluate
from mpvit.engine.train import train
from mpvit.errors import UserError
from mpvit.inference import load_detector

CONFIGS = Path(__file__).resolve().parent.parent / 'configs'
LEAVES = sorted(path.stem for path in CONFIGS.glob('d*/*.py'))  # of detectors
NUMBERS = ('box AP', 'box AP50', 'box AP75')
BY_SIZE = ('box AP small', 'box AP medium', 'box AP large')


@pytest.fixture(scope='module')
def metafile(root) -> dict:
    index = yaml.safe_load((root / 'model-index.yml').read_text())
    together: dict = dict(Collections=[], Models=[])
    for place in index['Import']:
        for entry, content in yaml.safe_load((root / place).read_text()).items():
            together[entry] += content
    return together


@pytest.fixture(autouse=True)
def _scope_of_the_test():
    """DetInferencer sets the default scope of the whole process."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.mark.parametrize(
    'name',
    ['mpvit_s_ddetr_50e', 'mpvit_s_ddetr_50e.py', 'deformable_detr/mpvit_s_ddetr_50e.py']
    + ['configs/deformable_detr/mpvit_s_ddetr_50e.py'],
)
def test_a_shipped_config_by_name_from_any_folder(root, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = mpvit.get_config(name, ['train_cfg.max_epochs=3'])
    assert Path(config.filename).samefile(root / 'configs/deformable_detr/mpvit_s_ddetr_50e.py')
    assert config.model.backbone.arch == 'small'
    assert (config.train_cfg.max_epochs, config.work_dir) == (3, 'work_dirs/mpvit_s_ddetr_50e')


def test_a_file_goes_before_a_shipped_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('mpvit_s_ddetr_50e.py').write_text('mine = 1\n')
    assert load_config('mpvit_s_ddetr_50e.py').mine == 1
    assert find_config('mpvit_s_ddetr_50e') != Path('mpvit_s_ddetr_50e')


@pytest.mark.parametrize(
    ('name', 'hint'),
    [
        ('mpvit_s_ddetr_5e', 'did you mean mpvit_s_ddetr_50e?'),
        ('r50_ddetr_50.py', 'did you mean r50_ddetr_50e?'),
        ('mine/r50_ddetr_50.py', 'did you mean r50_ddetr_50e?'),
        ('nothing', '`mpvit configs` lists all'),
        ('', '`mpvit configs` lists all'),
        ('mpvit_s_ddetr_50e.yaml', 'did you mean mpvit_s_ddetr_50e?'),
    ],
)
def test_an_unknown_name_is_answered_with_the_one_meant(name, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(hint)):
        mpvit.get_config(name)


def test_metafile_and_shipped_configs_are_the_same(root, metafile):
    assert set(LEAVES) < set(shipped_configs())  # mim has no use for the ImageNet configs
    assert sorted(model['Name'] for model in metafile['Models']) == sorted(LEAVES)
    collections = {entry['Name'] for entry in metafile['Collections']}
    for model in metafile['Models']:
        assert (root / model['Config']).stem == model['Name']
        assert model['In Collection'] in collections
        assert model['Metadata']['Epochs'] == load_config(model['Name']).train_cfg.max_epochs


def test_results_of_the_metafile_are_those_of_the_readme(root, metafile):
    """The table of published results is the one source; an en dash stands for 'not published'."""
    text = (root / 'README.md').read_text()
    rows = re.findall(r'^\|[^|]*\| \[(\w+)\.py\][^|]*\|(.*)\|$', text, re.M)
    published = {}
    for name, cells in rows:
        ap, ap50, ap75, sizes, _ = (cell.strip() for cell in cells.split('|'))
        values = [*zip(NUMBERS, (ap, ap50, ap75), strict=True)]
        values += zip(BY_SIZE, sizes.split(' / '), strict=True)
        published[name] = {key: float(value) for key, value in values if value != '–'}
    assert len(published) == 4
    # mmdet's one of DINO stands in configs/dino/README.md alone
    published['r50_dino_12e'] = {'box AP': 49.0}
    with_results = {model['Name']: model for model in metafile['Models'] if 'Results' in model}
    assert set(with_results) == set(published)
    for name, model in with_results.items():
        (result,) = model['Results']
        assert result['Metrics'] == published[name]
        assert model['Metadata']['Results From'].startswith('published by the authors of')


def test_weights_of_the_metafile_carry_their_checksum(metafile):
    links = {model['Name']: model['Weights'] for model in metafile['Models']}
    named = {name for name, link in links.items() if link}
    assert named == {'coat_lite_s_ddetr_50e', 'coat_s_ddetr_50e', 'r50_dino_12e'}
    for name in named:  # the reader compares it with the file (mpvit/checkpoints/reading.py)
        host = r'(vcl\.ucsd\.edu|download\.openmmlab\.com)'
        assert re.fullmatch(rf'https://{host}/\S+[_-][0-9a-f]{{8}}\.pth', links[name])


def test_mmengines_hub_finds_configs_and_weights(metafile):
    for model in metafile['Models']:
        name = model['Config'].removeprefix('configs/')
        config = hub_config(f'mpvit::{name}', pretrained=True)
        assert config.model == load_config(model['Name']).model
        assert config.model_path == model['Weights']


def test_a_name_of_no_config_is_not_guessed_from_files_nearby(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('shot.py').write_text('')
    with pytest.raises(UserError, match='nosuch .*`mpvit configs`'):
        find_config('nosuch')
    with pytest.raises(UserError, match='did you mean shot.py'):
        find_config('shots.py')


def test_the_scope_holds_what_mmdet_and_we_registered():
    with MODELS.switch_scope_and_registry('mpvit') as registry:
        assert registry.scope == 'mpvit'
        for name in ('MPViT', 'CoaT', 'DeformableDETR', 'ResNet', 'SyncBN'):
            assert registry.get(name) is not None, name
    with TRANSFORMS.switch_scope_and_registry('mpvit') as registry:
        assert registry.get('ShortSideResize') is not None
        assert registry.get('NoSuchThing') is None


def test_an_inherited_config_trains_and_evaluates(root, toy, tmp_path, monkeypatch):
    """A config of the user's own, in a folder of its own, that names ours as mmengine has it."""
    monkeypatch.chdir(tmp_path)
    narrow = load_config(root / 'tests/data/tiny.py').narrow.to_dict()
    Path('own.py').write_text(f"""
_base_ = 'mpvit::deformable_detr/mpvit_t_ddetr_toy.py'
model = dict(backbone=dict(arch={narrow}), neck=dict(in_channels=[32, 40]))
train_dataloader = dict(batch_size=4)
train_cfg = dict(max_epochs=1)
custom_hooks = [*_base_.custom_hooks]  # reading a base marks what is read with its scope
""")
    train('own.py', data=DataFiles(str(toy)))
    metrics = evaluate('work_dirs/own/own.py', 'work_dirs/own/epoch_1.pth')  # complete, as written
    log = min(Path('work_dirs/own').glob('*/vis_data/scalars.json')).read_text()
    validated = json.loads(log.splitlines()[-1])
    assert {name: validated[name] for name in metrics} == metrics


def test_the_inherited_config_of_the_docs(root, tmp_path):
    page = (root / 'docs/ecosystem.md').read_text()
    text = re.search(r'<!-- config: inherited -->\n```python\n(.*?)```', page, re.DOTALL)[1]
    (tmp_path / 'own.py').write_text(text)
    config = load_config(tmp_path / 'own.py')
    assert config.model.backbone.arch == 'small'
    assert config.train_dataloader.batch_size == 1 != config.val_dataloader.batch_size


def test_mmdets_inferencer_by_name_and_by_file(toy, tmp_path):
    """It gives the detections of our own door, with the config of the metafile and with a file."""
    config = mpvit.get_config('mpvit_t_ddetr_toy')
    model = MODELS.build(config.model)
    model.init_weights()
    classes = ('circle', 'square', 'triangle', 'star', 'cross', 'digit')
    checkpoint = tmp_path / 'random.pth'
    meta = dict(dataset_meta=dict(classes=classes))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), checkpoint)
    image = str(next((toy / 'val2017').iterdir()))
    expected = inference_detector(load_detector('mpvit_t_ddetr_toy', checkpoint), image)
    for name, scope in (('mpvit_t_ddetr_toy', 'mpvit'), (config.filename, 'mmdet')):
        inferencer = DetInferencer(
            name, str(checkpoint), device='cpu', scope=scope, show_progress=False
        )
        assert tuple(inferencer.model.dataset_meta['classes']) == classes
        (found,) = inferencer(image)['predictions']
        instances = expected.pred_instances
        assert found['labels'] == instances.labels.tolist()
        assert found['scores'] == pytest.approx(instances.scores.tolist(), abs=1e-5)
        assert len(found['bboxes']) == len(instances)
        for box, same in zip(found['bboxes'], instances.bboxes.tolist(), strict=True):
            assert box == pytest.approx(same, abs=1e-2)
    assert set(LEAVES) == set(DetInferencer.list_models('mpvit'))

"""Training and evaluation through the tools, whole, on a handful of images."""

import json
import pickle
import re

import pytest
import torch
from mmengine.config import Config
from runs import metrics_of

TWELVE = [
    *(f'coco/bbox_mAP{suffix}' for suffix in ('', '_50', '_75', '_s', '_m', '_l')),
    *(f'coco/bbox_AR{suffix}' for suffix in ('@1', '@10', '@100')),
    *(f'coco/bbox_AR_{size}@100' for size in 'sml'),
]


@pytest.fixture
def test(tiny_run, trained, tmp_path):
    """Test the trained tiny detector with flags; returns the output and the work folder."""

    def call(*flags, name='work'):
        work = tmp_path / name
        result = tiny_run('test', trained / 'epoch_2.pth', *flags, work=work)
        return result.out + result.err, work

    return call


def test_training_leaves_what_a_user_expects(trained):
    assert (trained / 'epoch_2.pth').is_file()
    assert (trained / 'last_checkpoint').read_text().endswith('epoch_2.pth')
    assert (trained / 'tiny.py').is_file()  # the resolved config
    (log,) = trained.glob('*/*.log')
    text = log.read_text()
    assert 'Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ]' in text
    (scalars,) = trained.glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert any('coco/bbox_mAP' in record for record in records)


def test_a_tiny_training_is_explained(trained):
    (log,) = trained.glob('*/*.log')
    (scalars,) = trained.glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in scalars.read_text().splitlines()]
    aps = [r['coco/bbox_mAP'] for r in records if 'coco/bbox_mAP' in r]
    assert ('likely causes found' in log.read_text()) == (min(aps) < 0.001)


def test_test_prints_the_twelve_lines_and_writes_what_it_is_asked_for(test, tmp_path):
    found = {}
    asked = ('--no-fold', '--classwise', '--show-dir', tmp_path / 'drawn')
    for name, flags in (('folded', ('--eval', 'bbox')), ('plain', asked)):
        raw = tmp_path / f'{name}.pkl'
        output, work = test(*flags, '--out', raw, name=name)
        lines = re.findall(r'^ Average (?:Precision|Recall) .*$', output, re.M)
        limits = [re.search(r'maxDets= *(\d+)', line)[1] for line in lines]
        assert limits == [*['100'] * 6, '1', '10', *['100'] * 4]
        metrics = metrics_of(work)
        assert list(metrics)[:12] == TWELVE
        for line, key in zip(lines, TWELVE, strict=True):
            assert float(line.split('=')[-1]) == pytest.approx(metrics[key], abs=1e-9)
        inference = json.loads((work / 'metrics.json').read_text())['inference']
        assert inference == dict(dtype='fp32', compile=False, fold=name == 'folded')
        images = pickle.loads(raw.read_bytes())
        assert len(images) == 6
        found[name] = torch.stack([image['pred_instances']['scores'] for image in images])
        # nothing for TensorBoard
        assert list(work.glob('*/vis_data/config.py'))
        assert not list(work.rglob('events.out.*'))
    # 30 queries x 6 classes, of which the best 100 are kept
    assert found['plain'].shape == (6, 100)
    torch.testing.assert_close(found['folded'], found['plain'], rtol=0, atol=1e-5)
    assert not torch.equal(found['folded'], found['plain'])  # rounding tells that it was folded
    assert {f'coco/{name}_precision' for name in ('circle', 'digit')} <= set(metrics)
    assert len(list((tmp_path / 'drawn').glob('*.jpg'))) == 6


@pytest.mark.parametrize(
    'flags', [('--dtype', 'bf16'), ('--dtype', 'fp16', '--tta'), ('--dtype', 'fp32', '--tta')]
)
def test_precision_and_mirror_images(test, flags):
    output, work = test(*flags)
    assert f'Inference: dtype {flags[1]}, compile False, fold True' in output
    assert list(metrics_of(work))[:12] == TWELVE


def test_averaged_weights_and_several_evaluators(tool, tiny, trained, tmp_path):
    """Averages are tested as they are: a checkpoint's weights are the average already."""
    config, places = tiny
    (tmp_path / 'mine.py').write_text(
        f"_base_ = '{config}'\n"
        "custom_hooks = [dict(type='EMAHook'), dict(type='NumClassCheckHook')]\n"
        "test_evaluator = [dict(type='CocoBoxMetric', ann_file=''), dict(type='DumpDetResults', "
        f"out_file_path='{tmp_path}/raw.pkl')]"
    )
    places = [place.replace('test_evaluator.', 'test_evaluator.0.') for place in places]
    words = ('--classwise', '--work-dir', tmp_path / 'work', '--cfg-options', *places)
    tool('test', tmp_path / 'mine.py', trained / 'epoch_2.pth', *words)
    metrics = metrics_of(tmp_path / 'work')
    assert list(metrics)[:12] == TWELVE
    assert 'coco/circle_precision' in metrics
    assert len(pickle.loads((tmp_path / 'raw.pkl').read_bytes())) == 6


def test_augmented_and_plain_images_have_one_size(root):
    from mpvit.config.presets import enable_tta
    from mpvit.config.reading import load_config

    config = load_config(root / 'configs' / 'deformable_detr' / 'mpvit_t_ddetr_toy.py')
    plain = config.test_dataloader.dataset.pipeline
    enable_tta(config)
    augmented = config.test_dataloader.dataset.pipeline
    assert augmented[:2] == plain[:2]
    assert augmented[1].scale == (128, 128)
    assert augmented[-1].type == 'TestTimeAug'


def test_config_of_a_run_resumed_from_a_file_starts_anew(tiny_run, trained, tmp_path):
    result = tiny_run('train', '--resume', trained / 'epoch_2.pth')
    assert 'finished already' in result.out + result.err
    written = Config.fromfile(tmp_path / 'work' / 'tiny.py')
    assert (written.resume, written.load_from) == (False, None)


@pytest.mark.parametrize(('flags', 'enabled', 'rule'), [
    ([], True, 'linear'), (['--auto-scale-lr'], True, 'linear'),
    (['--auto-scale-lr', 'sqrt'], True, 'sqrt'), (['--auto-scale-lr', 'off'], False, 'linear'),
])  # fmt: skip
def test_how_the_learning_rate_follows_the_batch_is_a_flag(
    tool, tiny, tmp_path, flags, enabled, rule, monkeypatch
):
    configs = []
    monkeypatch.setattr('mpvit.engine.train.run_training', lambda cfg, *_: configs.append(cfg))
    tool('train', tiny[0], *flags, '--work-dir', tmp_path)
    scaling = configs[0].auto_scale_lr
    assert (scaling.enable, scaling.get('rule', 'linear')) == (enabled, rule)

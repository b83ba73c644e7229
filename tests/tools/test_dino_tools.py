"""Every tool on DINO, as a user runs it."""

import json

import pytest
import torch
from own_layouts import roboflow
from runs import log_of, metrics_of

from mpvit.app.actions import Actions
from mpvit.app.detectors import Detectors
from mpvit.app.sources import choose_sources, find_pictures

CLASS_LAYER = 'bbox_head.cls_branches.{}.weight'
EMBEDDING = 'dn_query_generator.label_embedding.weight'


@pytest.fixture(scope='module')
def config(root):
    return root / 'tests' / 'data' / 'tiny_dino.py'


@pytest.fixture(scope='module')
def work(config, tiny, tmp_path_factory):
    """Work folder of a training of four steps."""
    from runs import forget_earlier_runs

    from mpvit.engine.train import train

    forget_earlier_runs()
    folder = tmp_path_factory.mktemp('dino')
    train(config, work_dir=str(folder), cfg_options=[*tiny[1], 'train_cfg.val_interval=1'])
    return folder


@pytest.fixture
def run(tiny_run, config, tmp_path):
    """A tool with the config and the checkpoint on the tiny data."""

    def call(name, *words, **more):
        return tiny_run(name, *words, config=config, work=tmp_path / 'work', **more)

    return call


def weights(path):
    return torch.load(path, weights_only=False)['state_dict']


def test_training_resumes_to_the_same_weights(run, work, tmp_path):
    run('train', '--resume', work / 'epoch_1.pth')
    first, second = (weights(folder / 'epoch_2.pth') for folder in (work, tmp_path / 'work'))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize('flags', [(), ('--dtype', 'bf16'), ('--tta',)], ids=str)
def test_tests(run, work, tmp_path, flags):
    run('test', work / 'epoch_2.pth', *flags)
    assert len(metrics_of(tmp_path / 'work')) >= 12


@pytest.mark.parametrize(
    ('format', 'suffix'),
    [('onnx', '.onnx'), pytest.param('openvino', '.xml', marks=pytest.mark.slow)],
)
def test_exports(tool, run, config, work, tmp_path, format, suffix):
    checkpoint, file = work / 'epoch_2.pth', tmp_path / f'dino{suffix}'
    result = tool('export', config, checkpoint, '--format', format, '--out', file)
    assert 'largest difference from PyTorch over 7 images' in result.out  # compared, or refused
    run('test', file)
    found = metrics_of(tmp_path / 'work')
    run('test', checkpoint)
    assert found == pytest.approx(metrics_of(tmp_path / 'work'), abs=2e-3)


def test_infers_and_shows_what_queries_look_at(tool, config, work, toy, tmp_path):
    image = next((toy / 'val2017').iterdir())
    flags = ('--out', tmp_path / 'found', '--threshold', '0')
    tool('infer', config, work / 'epoch_2.pth', image, *flags)
    assert any((tmp_path / 'found').rglob('*.json'))
    result = tool('show_queries', config, work / 'epoch_2.pth', image, '--out', tmp_path / 'q.png')
    assert (tmp_path / 'q.png').stat().st_size > 10_000
    assert result.out.count(',') == 5  # six detections


def test_is_shown_on_the_page(config, work, toy, tmp_path):
    checkpoint = torch.load(work / 'epoch_2.pth', weights_only=False)
    for name, value in checkpoint['state_dict'].items():
        if name.startswith('bbox_head.cls_branches') and name.endswith('bias'):
            value.zero_()  # scores that the page shows
    torch.save(checkpoint, tmp_path / 'sure.pth')
    sources = choose_sources(str(config), str(tmp_path / 'sure.pth'), tmp_path)
    actions = Actions(Detectors(sources, 'cpu'), find_pictures(toy / 'val2017'), tmp_path)
    result = actions.detect(actions.example(0), sources[0].name)
    assert result.layers == 2
    assert actions.select(result, 0, 1).points.layer == 1


def test_is_counted_and_reported(tool, config, work, tmp_path):
    result = tool('model_info', config, '--size', '128', '128', '--no-latency')
    assert 'not counted' not in result.out
    tool('report', work, '--out', tmp_path / 'report.html')
    assert 'DINO' in (tmp_path / 'report.html').read_text()


def test_fine_tunes_on_classes_of_other_data(tool, config, work, toy, tmp_path):
    """Three classes of the six, in another order; the class embedding goes with them."""
    data = roboflow(toy, tmp_path / 'data')
    for path in data.rglob('*.json'):
        content = json.loads(path.read_text())
        kept = {c['id']: c for c in content['categories'] if c['name'] in ('star', 'circle')}
        for category in content['categories']:
            if category['name'] == 'digit':
                kept[category['id']] = {**category, 'name': 'numeral'}
        content['categories'] = list(kept.values())[::-1]
        content['annotations'] = [a for a in content['annotations'] if a['category_id'] in kept]
        path.write_text(json.dumps(content))
    options = [f'load_from={work / "epoch_2.pth"}', 'train_cfg.max_epochs=1']
    options += ['optim_wrapper.optimizer.lr=1e-9']
    tuned = tmp_path / 'tuned'
    tool('train', config, '--data', data, '--work-dir', tuned, '--cfg-options', *options)
    assert '2 of 3 classes keep their weights by name' in log_of(tuned)
    old, new = weights(work / 'epoch_2.pth'), weights(tuned / 'epoch_1.pth')
    names = torch.load(tuned / 'epoch_1.pth', weights_only=False)['meta']['dataset_meta']['classes']
    for name in (*map(CLASS_LAYER.format, range(3)), EMBEDDING):
        assert len(new[name]) == 3
        for known, row in (('circle', 0), ('star', 3)):
            kept = new[name][list(names).index(known)]
            torch.testing.assert_close(kept, old[name][row], rtol=0, atol=1e-5)

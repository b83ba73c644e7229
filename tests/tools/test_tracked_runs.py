"""What a real training leaves for TensorBoard, W&B and MLflow; a test leaves nothing."""

import json
import warnings

import pytest
from mmengine.config import Config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mpvit.engine.trackers import mlflow_store


def events(work):
    """The TensorBoard folders of a work folder, and what is in the only one."""
    (folder,) = {path.parent for path in work.glob('*/vis_data/events.out.*')}
    found = EventAccumulator(str(folder))
    found.Reload()
    return folder, found


def test_a_training_leaves_tensorboard_events_by_default(trained):
    folder, found = events(trained)
    lines = (folder / 'scalars.json').read_text().splitlines()
    for name in ('loss', 'coco/bbox_mAP'):
        logged = [(row['step'], row[name]) for row in map(json.loads, lines) if name in row]
        assert logged
        assert [e.step for e in found.Scalars(name)] == [step for step, _ in logged]
        assert [e.value for e in found.Scalars(name)] == pytest.approx([v for _, v in logged])
    assert 'config/text_summary' in found.Tags()['tensors']


@pytest.mark.slow
def test_a_resumed_training_goes_on_in_the_same_runs(tiny_run, tmp_path, monkeypatch):
    """Four epochs, of which the first run makes two, in all three trackers."""
    mlflow = pytest.importorskip('mlflow')
    pytest.importorskip('wandb')
    monkeypatch.setenv('WANDB_MODE', 'offline')
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    for more in ([], ['--resume']):
        options = ['default_hooks.logger.interval=1', f'train_cfg.max_epochs={4 if more else 2}']
        flags = ('--track', 'wandb', 'mlflow', *more)
        tiny_run('train', *flags, work=tmp_path, options=options)
    assert [e.step for e in events(tmp_path)[1].Scalars('loss')] == list(range(1, 9))
    assert [e.step for e in events(tmp_path)[1].Scalars('coco/bbox_mAP')] == [1, 2, 3, 4]
    runs = list(tmp_path.glob('wandb/offline-run-*/run-*.wandb'))
    assert len(runs) == 2
    assert len({run.name for run in runs}) == 1
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of MLflow's own
        client = mlflow.MlflowClient(mlflow_store(tmp_path))
        (run,) = client.search_runs([client.get_experiment_by_name('mpvit').experiment_id])
    losses = client.get_metric_history(run.info.run_id, 'loss')
    assert [m.step for m in losses] == list(range(1, 9))
    (config_file,) = tmp_path.glob('mlflow/*/artifacts/config.py')
    assert Config.fromfile(config_file).train_cfg.max_epochs == 4

"""What the trackers record, read back with the readers of their makers; and that they may fail."""

import threading
import warnings
from pathlib import Path

import pytest
from file_limits import limited_files
from mmengine.config import Config
from mmengine.logging import MMLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mpvit.engine import trackers
from mpvit.engine.trackers import MLflowTracker, TensorboardTracker, WandbTracker, mlflow_store

CONFIG = Config(dict(model=dict(type='Net', widths=[1, 2]), note='x' * 9000, seed=42))


def place(work_dir: Path, start: str) -> str:
    """Where the visualizer of a run that started then lets its backends write."""
    return str(work_dir / start / 'vis_data')


def record(tracker, *steps):
    """Losses of steps, each of which is also an epoch with a validation."""
    tracker.add_config(CONFIG)
    for step in steps:
        tracker.add_scalars(dict(loss=10.0 / step, iter=step, lr=0.1), step=step)
        tracker.add_scalars({'coco/bbox_AR@100': step / 10}, step=step // 100)


@pytest.fixture
def said(monkeypatch):
    """Warnings of the trackers."""
    lines = []
    monkeypatch.setattr(trackers, 'print_log', lambda text, **settings: lines.append(text))
    return lines


def scalars(folder: str) -> EventAccumulator:
    found = EventAccumulator(folder)
    found.Reload()
    return found


def test_tensorboard_has_everything_before_it_is_closed(tmp_path):
    folder = place(tmp_path, '20260101_000000')
    record(TensorboardTracker(folder), 100, 200)
    found = scalars(folder)
    assert [(e.step, round(e.value, 4)) for e in found.Scalars('loss')] == [(100, 0.1), (200, 0.05)]
    assert [e.step for e in found.Scalars('coco/bbox_AR@100')] == [1, 2]
    (text,) = found.Tensors('config/text_summary')
    assert "type='Net'" in text.tensor_proto.string_val[0].decode()


def test_tensorboard_goes_on_in_the_folder_of_the_run_it_continues(tmp_path):
    """As after a kill at step 300, with a checkpoint of step 250."""
    first, second, third = (place(tmp_path, f'2026010{day}_000000') for day in (1, 2, 3))
    record(TensorboardTracker(first), 100, 200)
    record(TensorboardTracker(second), 100, 200, 300)  # begun anew: a run of its own
    record(TensorboardTracker(third, continued=True), 260, 360)
    assert not Path(third).exists()
    assert [e.step for e in scalars(first).Scalars('loss')] == [100, 200]
    found = scalars(second)
    assert [e.step for e in found.Scalars('loss')] == [100, 200, 260, 360]
    assert [e.step for e in found.Scalars('coco/bbox_AR@100')] == [1, 2, 3, 2, 3]


def test_tensorboard_on_a_full_disk_is_heard_in_lines(tmp_path, said, capfd, monkeypatch):
    monkeypatch.setattr(threading, 'excepthook', threading.__excepthook__)
    tracker = TensorboardTracker(place(tmp_path, '20260101_000000'))
    with limited_files(2000):
        record(tracker, *range(100, 1000, 100))
        tracker.close()
    assert 1 <= len(said) <= 3
    assert all('TensorboardTracker: OSError: ' in line for line in said)
    for thread in threading.enumerate():
        if type(thread).__name__ == '_AsyncWriterThread':
            thread.join(10)  # it has failed
    assert 'Traceback' not in capfd.readouterr().err


def test_a_failing_tracker_is_heard_three_times_and_ends_nothing(tmp_path, said):
    (tmp_path / 'file').write_text('')  # where a folder should be
    tracker = TensorboardTracker(place(tmp_path / 'file', '20260101_000000'))
    record(tracker, 1, 2, 3, 4)
    tracker.close()
    assert len(said) == 3
    assert 'Not a directory' in said[0]
    assert said[0].endswith('training goes on')
    assert said[2].endswith('no more is sent')


def test_a_tracker_that_recovers_is_used_again(tmp_path, said):
    folder = place(tmp_path, '20260101_000000')
    tracker = TensorboardTracker(folder)
    obstacle = tmp_path / '20260101_000000'
    obstacle.write_text('')
    for step in (1, 2):
        tracker.add_scalars(dict(loss=1.0, iter=step), step=step)
    obstacle.unlink()
    tracker.add_scalars(dict(loss=1.0, iter=3, note='no number'), step=3)
    assert [e.step for e in scalars(folder).Scalars('loss')] == [3]
    assert len(said) == 2


@pytest.fixture
def no_login(monkeypatch, tmp_path):
    """Nobody has logged in to Weights & Biases here, and nobody can be asked."""
    pytest.importorskip('wandb')
    for name in ('WANDB_API_KEY', 'WANDB_MODE', 'WANDB_PROJECT'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    monkeypatch.setenv('NETRC', str(tmp_path / 'home' / 'netrc'))
    monkeypatch.setenv('WANDB_CONFIG_DIR', str(tmp_path / 'home'))
    monkeypatch.setenv('WANDB_SILENT', 'true')


def test_wandb_without_login_records_offline_in_one_run(no_login, tmp_path, said):
    import wandb

    work = tmp_path / 'work'
    for start, steps in (('20260101_000000', (100, 200)), ('20260102_000000', (260,))):
        tracker = WandbTracker(place(work, start), continued=start != '20260101_000000')
        record(tracker, *steps)
        assert wandb.run.settings.mode == 'offline'
        assert wandb.run.name == 'work'
        assert wandb.run.project == 'mpvit'
        assert wandb.config['model'] == dict(type='Net', widths=[1, 2])
        assert wandb.run.summary['iter'] == steps[-1]
        tracker.close()
        assert wandb.run is None
    assert len(said) == 2
    assert 'wandb sync' in said[0]
    files = sorted(work.glob('wandb/offline-run-*/run-*.wandb'))
    assert len(files) >= 1
    assert len({file.name for file in files}) == 1  # the id of the run
    content = b''.join(file.read_bytes() for file in files)
    assert b'coco/bbox_AR@100' in content
    assert not list(work.glob('wandb/*/files/code'))


def test_mlflow_records_one_run_in_the_work_folder(tmp_path, monkeypatch, said):
    mlflow = pytest.importorskip('mlflow')
    # mmengine's backend fails at a current logger whose stream an earlier test has closed
    MMLogger.get_instance(str(tmp_path))
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of MLflow's own
        for start, steps in (('20260101_000000', (100, 200)), ('20260102_000000', (260,))):
            tracker = MLflowTracker(place(tmp_path, start), continued=start != '20260101_000000')
            record(tracker, *steps)
            tracker.close()
        assert said == []
        client = mlflow.MlflowClient(mlflow_store(tmp_path))
        experiment = client.get_experiment_by_name('mpvit')
        (run,) = client.search_runs([experiment.experiment_id])
    losses = client.get_metric_history(run.info.run_id, 'loss')
    assert [(m.step, m.value) for m in losses] == [(100, 0.1), (200, 0.05), (260, 10 / 260)]
    recalls = client.get_metric_history(run.info.run_id, 'coco/bbox_AR_100')  # @ is not allowed
    assert {m.step for m in recalls} == {1, 2}
    assert run.data.params['model.type'] == 'Net'
    assert run.data.params['seed'] == '42'
    assert run.info.status == 'FINISHED'
    (config,) = tmp_path.glob('mlflow/*/artifacts/config.py')
    assert "type='Net'" in config.read_text()


def test_mlflow_server_that_does_not_answer(tmp_path, monkeypatch, said):
    pytest.importorskip('mlflow')
    monkeypatch.setenv('MLFLOW_TRACKING_URI', 'http://127.0.0.1:9')  # nobody listens
    monkeypatch.setenv('MLFLOW_HTTP_REQUEST_MAX_RETRIES', '0')
    tracker = MLflowTracker(place(tmp_path, '20260101_000000'))
    record(tracker, 1, 2, 3)
    tracker.close()
    assert len(said) == 3
    assert 'no more is sent' in said[2]

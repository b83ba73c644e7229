"""TensorBoard, Weights & Biases and MLflow: mmengine's backends, made safe for long trainings.

Unlike mmengine's, a failure of theirs never ends a training, and a training that goes on after an
interruption goes on in the same run.
"""

import importlib.util
import logging
import os
import re
import threading
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import VISBACKENDS
from mmengine.visualization import (
    BaseVisBackend,
    MLflowVisBackend,
    TensorboardVisBackend,
    WandbVisBackend,
)

_PATIENCE = 3  # failures in a row after which nothing is sent any more
_PROJECT = 'mpvit'
_MLFLOW_NAME = re.compile(r'[^\w\-. :/]')  # what it does not allow, such as the @ of AR@100


class _Tracker(BaseVisBackend):
    """What the backends have in common: they may fail.

    Args:
        save_dir: ``<work folder>/<start of the run>/vis_data``.
        continued: The training goes on from a checkpoint, and so does its run.
        **kwargs: As for the backend of mmengine.
    """

    def __init__(self, save_dir: str, continued: bool = False, **kwargs: Any) -> None:
        super().__init__(save_dir, **kwargs)
        self._continued = continued
        # a visualizer without a folder, such as an inferencer's, leaves out what needs one
        self._work_dir = Path(save_dir or 'none/vis_data').absolute().parents[1]
        self._failures = 0
        self._config: Config | None = None

    def add_config(self, config: Config, **kwargs: Any) -> None:
        """Record the config as soon as there is a number: until then a training may be refused."""
        self._config = config

    def add_image(self, *args: Any, **kwargs: Any) -> None:
        """Record an image."""
        self._try(super().add_image, *args, **kwargs)

    def add_scalars(self, scalar_dict: dict[str, Any], step: int = 0, *args: Any) -> None:
        """Record several numbers of a step."""
        self._try(self._record, scalar_dict, step)

    def close(self) -> None:
        """Write what is left."""
        if self._env_initialized:
            self._try(self._finish)

    def _record(self, scalar_dict: dict[str, Any], step: int) -> None:
        if self._config is not None:
            self._send_config(self._config)
            self._config = None
        self._send(scalar_dict, step)

    def _send_config(self, config: Config) -> None:
        raise NotImplementedError

    def _send(self, scalar_dict: dict[str, Any], step: int) -> None:
        super().add_scalars(scalar_dict, step)

    def _finish(self) -> None:
        super().close()

    def _try(self, action: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        if self._failures == _PATIENCE:
            return
        try:
            action(*args, **kwargs)
            self._failures = 0
        except Exception as error:
            self._failures += 1
            left = 'no more is sent' if self._failures == _PATIENCE else 'training goes on'
            self._warn(f'{type(error).__name__}: {error}; {left}')

    def _warn(self, text: str) -> None:
        line = f'{type(self).__name__}: {" ".join(text.split())}'
        print_log(line, logger='current', level=logging.WARNING)


@VISBACKENDS.register_module()
class TensorboardTracker(_Tracker, TensorboardVisBackend):
    """TensorBoard: event files in ``vis_data`` of the run, on disk after every record.

    A continued training writes into the folder of the run that it continues. Records of steps
    that are computed again replace the old ones.
    """

    def __init__(self, save_dir: str, continued: bool = False) -> None:
        super().__init__(save_dir, continued)
        self._text: str | None = None
        self._first_step: int | None = None
        if continued:
            folders = {path.parent for path in self._work_dir.glob('*/vis_data/events.out.*')}
            self._save_dir = str(max(folders, default=save_dir))

    def _send_config(self, config: Config) -> None:
        self._text = config.pretty_text  # until it is known at which step the file begins

    def _send(self, scalar_dict: dict[str, Any], step: int) -> None:
        if self._continued and self._first_step is None and 'iter' in scalar_dict:
            self._first_step = step
        writer = self.experiment
        for name, value in _numbers(scalar_dict).items():
            writer.add_scalar(name, value, step)
        writer.flush()

    def _init_env(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        _leave_to_the_next_record()
        # readers drop what an earlier file of the folder has from this step on
        self._tensorboard = SummaryWriter(self._save_dir, purge_step=self._first_step)
        if self._text is not None:
            self._tensorboard.add_text('config', self._text)


@VISBACKENDS.register_module()
class WandbTracker(_Tracker, WandbVisBackend):
    """Weights & Biases: the numbers and the config; offline where there is no login or network.

    The project is that of ``WANDB_PROJECT``, or mpvit. Everything is drawn over the training step.

    Args:
        init_kwargs: For `wandb.init`.
    """

    def __init__(
        self, save_dir: str, continued: bool = False, init_kwargs: dict[str, Any] | None = None
    ) -> None:
        over_steps = dict(name='*', step_metric='iter', step_sync=True)
        super().__init__(save_dir, continued, define_metric_cfg=[over_steps])
        self._init_kwargs = dict(
            project=os.environ.get('WANDB_PROJECT', _PROJECT),
            name=self._work_dir.name,
            dir=str(self._work_dir),
            resume='allow',
            id=self._earlier_id() if continued else None,
        )
        self._init_kwargs.update(init_kwargs or {})

    def _send_config(self, config: Config) -> None:
        # not all of the Python files around, as mmengine does
        self.experiment.config.update(config.to_dict(), allow_val_change=True)

    def _init_env(self) -> None:
        try:
            super()._init_env()
        except Exception as error:  # no login, no network, no answer
            self._warn(f'{error}; going on offline, `wandb sync` sends it later')
            self._init_kwargs['mode'] = 'offline'
            super()._init_env()

    def _finish(self) -> None:
        self._wandb.finish()

    def _earlier_id(self) -> str | None:
        """That of the last run in the work folder, whose folder ends with it."""
        runs = [p.name.split('run-')[1] for p in self._work_dir.glob('wandb/*run-*-*')]
        return max(runs).split('-', 1)[1] if runs else None


@VISBACKENDS.register_module()
class MLflowTracker(_Tracker, MLflowVisBackend):
    """MLflow: the numbers, the config as parameters and as a file.

    They go to ``MLFLOW_TRACKING_URI`` or, if that is not set, into the work folder.
    """

    def __init__(self, save_dir: str, continued: bool = False) -> None:
        super().__init__(save_dir, continued, exp_name=_PROJECT)

    def _send(self, scalar_dict: dict[str, Any], step: int) -> None:
        # mmengine would try a dead server for ever
        numbers = _numbers(scalar_dict).items()
        self.experiment.log_metrics({_MLFLOW_NAME.sub('_', n): value for n, value in numbers}, step)

    def _send_config(self, config: Config) -> None:
        mlflow = self.experiment
        if not self._found:  # MLflow lets nobody change parameters
            mlflow.log_params(self._flatten(config.to_dict()))
        mlflow.log_text(config.pretty_text, 'config.py')

    def _init_env(self) -> None:
        # otherwise a server that does not answer holds up a training for minutes at every record
        os.environ.setdefault('MLFLOW_HTTP_REQUEST_MAX_RETRIES', '1')
        os.environ.setdefault('MLFLOW_HTTP_REQUEST_TIMEOUT', '10')
        self._tracking_uri = os.environ.get('MLFLOW_TRACKING_URI')
        if not self._tracking_uri:
            self._tracking_uri = mlflow_store(self._work_dir)
            self._artifact_location = (self._work_dir / 'mlflow').as_uri()
        super()._init_env()
        tag = str(self._work_dir).replace("'", '')
        self._found = self._continued and self._mlflow.search_runs(
            filter_string=f"tags.work_dir = '{tag}'",
            order_by=['attributes.start_time DESC'],
            max_results=1,
            output_format='list',
        )
        self._mlflow.start_run(
            run_id=self._found[0].info.run_id if self._found else None,
            run_name=self._work_dir.name,
            tags=dict(work_dir=tag),
        )

    def _finish(self) -> None:
        self._mlflow.end_run()


def _leave_to_the_next_record() -> None:
    """Let TensorBoard's own thread end without a traceback: the next record raises its error."""
    report = threading.excepthook
    if report.__module__ != __name__:

        def quiet(arguments: Any) -> None:
            if type(arguments.thread).__name__ != '_AsyncWriterThread':
                report(arguments)

        threading.excepthook = quiet


def _numbers(scalar_dict: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in scalar_dict.items() if isinstance(value, Real)}


def mlflow_store(work_dir: Path) -> str:
    """Where MLflow's records of a training lie, as an address for MLflow; the path is absolute.

    Returns:
        That of a database; of a folder where MLflow was installed without its databases.
    """
    if importlib.util.find_spec('alembic'):
        return f'sqlite:///{work_dir}/mlflow.db'
    os.environ.setdefault('MLFLOW_ALLOW_FILE_STORE', 'true')  # or newer ones refuse it
    return (work_dir / 'mlruns').as_uri()

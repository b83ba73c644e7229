"""Where the numbers of a training go beside its log: TensorBoard, Weights & Biases, MLflow."""

from collections.abc import Sequence

from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config, ConfigDict
from mmengine.visualization import Visualizer

from mpvit.engine.resume import candidates
from mpvit.errors import optional

_TRACKERS = dict(tensorboard='TensorboardTracker', wandb='WandbTracker', mlflow='MLflowTracker')


def use_trackers(cfg: Config, track: Sequence[str] = ()) -> None:
    """Record a training also elsewhere, and in the same run if it goes on from a checkpoint.

    Args:
        cfg: Config with ``work_dir`` and with ``resume`` as it will be; changed in place.
        track: 'wandb', 'mlflow', 'tensorboard', beside those of the config.

    Raises:
        UserError: A package is not installed.
    """
    for name in track:
        if name != 'tensorboard':
            optional(name, f'--track {name} would', 'tracking')
    backends = _backends(cfg)
    present = {backend.type for backend in backends}
    added = [ConfigDict(type=_TRACKERS[name]) for name in track]
    backends += [backend for backend in added if backend.type not in present]
    for backend in backends:
        if backend.type in _TRACKERS.values():
            backend.continued = bool(cfg.get('resume') and candidates(cfg.work_dir))
    _set_backends(cfg, backends)


def without_trackers(cfg: Config) -> None:
    """Record nothing elsewhere: a test has no curves.

    Args:
        cfg: Changed in place.
    """
    _set_backends(cfg, [b for b in _backends(cfg) if b.type not in _TRACKERS.values()])


def forget_visualizers() -> None:
    """Let the next run of this process have a visualizer of its own.

    mmengine keeps them by name, and one that is there goes on writing into its run's folder.
    """
    for kind in (Visualizer, DetLocalVisualizer):
        kind._instance_dict.clear()


def _backends(cfg: Config) -> list[ConfigDict]:
    return list((cfg.get('visualizer') or {}).get('vis_backends') or [])


def _set_backends(cfg: Config, backends: list[ConfigDict]) -> None:
    if cfg.get('visualizer'):
        cfg.visualizer.vis_backends = backends

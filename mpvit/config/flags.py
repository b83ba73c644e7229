"""What people change most about a training, by the names they expect; the rest follows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from mmengine.config import Config, ConfigDict

from mpvit.config.reading import leaf_datasets
from mpvit.config.stored import config_name
from mpvit.errors import UserError

# What counts as a better AP; mmengine's default, 0.1, is far more than an evaluation gains.
_BETTER = 1e-3
_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


@dataclass(frozen=True)
class TrainingFlags:
    """Settings of a training in place of the config's; None leaves them as they are.

    Attributes:
        epochs: Length. Milestones and ends of schedules that count epochs move along.
        batch_size: Images of a step on each process; 'auto' leaves them to be found by
            `mpvit.engine.batch_size.choose_batch`.
        image_size: Pixels of the longer side in the evaluation; all sizes of both pipelines change
            by the same factor.
        lr: Learning rate as it is, not scaled with the images of a step.
        freeze: The stem and so many stages of the backbone keep their weights.
        early_stop: End after so many evaluations without a better AP.
        workers: Processes that load images, for each of the dataloaders.
        seed: Of all random numbers.
    """

    epochs: int | None = None
    batch_size: int | Literal['auto'] | None = None
    image_size: int | None = None
    lr: float | None = None
    freeze: int | None = None
    early_stop: int | None = None
    workers: int | None = None
    seed: int | None = None

    def apply(self, config: Config) -> None:
        """Change a config in place.

        Raises:
            UserError: It has no place for one of them.
        """
        changes: dict[str, Callable[[Config, Any], None]] = dict(
            epochs=_set_epochs,
            batch_size=_set_batch_size,
            image_size=_set_image_size,
            lr=_set_lr,
            freeze=_set_frozen_stages,
            early_stop=_set_early_stop,
            workers=_set_workers,
            seed=_set_seed,
        )
        for name, change in changes.items():
            value = getattr(self, name)
            if value is None:
                continue
            try:
                change(config, value)
            except (AttributeError, KeyError, TypeError) as error:
                flag = f'--{name.replace("_", "-")} {value}'
                raise UserError(
                    f'{flag}: {config_name(config)} has no usual place for it ({error}); use '
                    '--cfg-options'
                ) from error


def _set_epochs(config: Config, epochs: int) -> None:
    old = config.train_cfg.max_epochs
    config.train_cfg.max_epochs = epochs
    config.train_cfg.val_interval = min(config.train_cfg.get('val_interval', 1), epochs)
    for scheduler in config.get('param_scheduler') or []:
        if not scheduler.get('by_epoch', True):
            continue  # a warm-up that counts steps
        for key in ('begin', 'end', 'T_max', 'step_size'):
            if isinstance(scheduler.get(key), int):
                scheduler[key] = _moved(scheduler[key], epochs / old)
        if 'milestones' in scheduler:
            scheduler.milestones = [_moved(m, epochs / old) for m in scheduler.milestones]


def _moved(epoch: int, factor: float) -> int:
    return max(1, round(epoch * factor)) if epoch else 0


def _set_batch_size(config: Config, batch_size: int | Literal['auto']) -> None:
    if batch_size != 'auto':
        config.train_dataloader.batch_size = batch_size


def _set_image_size(config: Config, size: int) -> None:
    old = long_side(config)
    pipelines = [d.pipeline for name in _LOADERS for d in leaf_datasets(config[name].dataset)]
    done: set[int] = set()
    for pipeline in [*pipelines, config.get('tta_pipeline') or []]:
        _resize(pipeline, size / old, done)
    preprocessor: Any = config.model.get('data_preprocessor') or {}
    if preprocessor.get('pad_size_divisor') == old:  # all images padded to one square
        preprocessor.pad_size_divisor = size


def long_side(config: Config) -> int:
    """Pixels of the longer side in a config's evaluation.

    Raises:
        KeyError: No step of its pipeline resizes.
    """
    (dataset, *_) = leaf_datasets(config.test_dataloader.dataset)
    side = max(_long_sides(dataset.pipeline), default=0)
    if not side:
        raise KeyError('a step that resizes')
    return side


def _long_sides(step: Any) -> Iterator[int]:
    """Sizes that the steps of a pipeline resize to."""
    if isinstance(step, dict):
        if 'scale' in step:
            yield max(step['scale'])
        for child in step.values():
            yield from _long_sides(child)
    elif isinstance(step, (list, tuple)):
        for child in step:
            yield from _long_sides(child)


def _resize(step: Any, factor: float, done: set[int]) -> None:
    """Change every size in the steps of a pipeline, each step once."""
    if isinstance(step, (list, tuple)):
        for child in step:
            _resize(child, factor, done)
    elif isinstance(step, dict) and id(step) not in done:
        done.add(id(step))
        for key, value in step.items():
            if key in ('scale', 'scales', 'crop_size', 'img_scale'):
                step[key] = _scaled(value, factor)
            else:
                _resize(value, factor, done)


def _scaled(value: Any, factor: float) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_scaled(child, factor) for child in value)
    return max(1, round(value * factor)) if value > 1 else value  # a ratio stays


def _set_lr(config: Config, lr: float) -> None:
    config.optim_wrapper.optimizer.lr = lr
    config.setdefault('auto_scale_lr', ConfigDict()).enable = False


def _set_frozen_stages(config: Config, stages: int) -> None:
    config.model.get('module', config.model).backbone.frozen_stages = stages


def _set_early_stop(config: Config, patience: int) -> None:
    monitor = config.default_hooks.checkpoint.save_best
    hook = ConfigDict(
        type='EarlyStoppingHook',
        monitor=monitor,
        rule='greater',
        min_delta=_BETTER,
        patience=patience,
    )
    set_hook(config, hook)


def set_hook(config: Config, hook: ConfigDict) -> None:
    """Add a hook to a config in the place of one of the same type."""
    others = [h for h in config.get('custom_hooks') or [] if h.type != hook.type]
    config.custom_hooks = [*others, hook]


def _set_workers(config: Config, workers: int) -> None:
    for loader in (config.get(name) for name in _LOADERS):
        if loader:
            loader.num_workers = workers
            if not workers:  # PyTorch refuses these without workers
                loader.persistent_workers = False
                loader.pop('prefetch_factor', None)


def _set_seed(config: Config, seed: int) -> None:
    config.setdefault('randomness', ConfigDict()).seed = seed

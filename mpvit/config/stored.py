"""The config that a checkpoint was trained with, read as data: nothing in it is executed."""

import os
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mpvit.checkpoints.reading import TRUST_VARIABLE, read, trusted
from mpvit.config.literals import NOT_DATA, literal_entries
from mpvit.errors import UserError
from mpvit.files.paths import newest_config
from mpvit.files.untrusted import TEXT_BYTES, read_untrusted

# What a config names is called with what stands beside it, and mmengine imports whatever it does
# not know; parts of mmdet evaluate strings or read pickles. So a stored config may name these only:
# what shipped configs and the flags of commands use, and others known to be harmless.
_TYPES = frozenset(
    'Accuracy AdamW AnyWidthDINO AnyWidthDeformableDETR AspectRatioBatchSampler '
    'AutocastOptimWrapper BN BroadcastL1Cost CenterCrop ChannelMapper CheckpointFitHook CoaT '
    'CocoBoxMetric CocoDataset CocoMetric ConcatDataset ConstantLR CosineAnnealingLR CustomDataset '
    'CutMix DefaultSampler DetDataPreprocessor DetLocalVisualizer DetTTAModel DetVisualizationHook '
    'DigitsDataset DistSamplerSeedHook DurableCheckpointHook EMAHook '
    'EarlyStoppingHook ExpMomentumEMA ExponentialLR FPN FilterAnnotations FiniteAmpOptimWrapper '
    'FiniteOptimWrapper FiniteStepHook FocalLoss FocalLossCost GIoULoss GN GlobalAveragePooling '
    'HungarianAssigner ImageClassifier ImageNet IoUCost IterTimerHook L1Loss LN LabelSmoothLoss '
    'LinearClsHead LinearLR LoadAnnotations LoadImageFromFile LocalVisBackend LogProcessor '
    'LoggerHook MLflowTracker MMDistributedDataParallel MPViT MergedOptimWrapperConstructor Mixup '
    'MultiStepLR NumClassCheckHook OfficialCocoDataset OfficialDINOHead OfficialDeformableDETRHead '
    'PackDetInputs PackInputs ParamSchedulerHook PhotoMetricDistortion PolyLR PortableRunner '
    'Pretrained RandAugment RandomChoice RandomChoiceResize RandomCrop RandomErasing RandomFlip '
    'RandomResize RandomResizedCrop RepeatAugSampler RepeatDataset ResNet Resize ResizeEdge '
    'ResumableTrainLoop SGD ScreenHook SharedWeightsEMA ShortSideResize StepLR SyncBN '
    'SyncBuffersHook TensorboardTracker TestLoop TestTimeAug TimmBackbone ToyDataset TruncNormal '
    'UniversalVisualizer ValLoop VisualizationHook WandbTracker YOLOXHSVRandomAug ZeroAPHook '
    'mmdet.MPViT nms'.split()
)
_NAMES_OF_TYPES = ('type', 'constructor', 'ema_type', 'runner_type')
_SCOPES = ('mmdet', 'mmpretrain', 'mpvit')
# Where parts of a run would write, other than in its work folder.
_PLACES = (
    'filename_tmpl',
    'out_dir',
    'out_file_path',
    'outfile_prefix',
    'save_dir',
    'test_out_dir',
)
_MODULES = ('mpvit.register', 'mpvit.datasets.imagenet')


def stored_config(checkpoint: Path) -> Config:
    """The config of the training that left a checkpoint.

    It is in the checkpoint; for an exported detector it is the newest beside the file. Outputs go
    into the folder of the checkpoint if that is the run's, wherever it was moved.

    Args:
        checkpoint: A checkpoint, or an exported detector.

    Raises:
        UserError: There is none, or it needs code of its own.
    """
    beside = newest_config(checkpoint.parent)
    text = read_untrusted(beside, TEXT_BYTES).decode(errors='replace') if beside else None
    if checkpoint.suffix not in ('.onnx', '.xml'):
        text = _text_inside(checkpoint) or text
    hint = f'name the config first: CONFIG {checkpoint}'
    if text is None:
        raise UserError(f'{checkpoint} does not say which config it was trained with; {hint}')
    try:
        entries = literal_entries(text)
        if not trusted():
            _check_names(entries)
        if not isinstance(entries.get('model'), dict):
            raise ValueError('it has no model')
        _drop_places(entries)
    except NOT_DATA as error:
        raise UserError(
            f'the config of {checkpoint} cannot be used as data: '
            f'{str(error) or type(error).__name__}; {hint}'
        ) from error
    name = str(beside or checkpoint.with_suffix('.py'))
    config = Config(entries, cfg_text=text, filename=name)
    config.work_dir = str(checkpoint.parent) if beside else None
    config.load_from, config.resume = None, False
    return config


def stored_entries(checkpoint: Path) -> dict[str, Any]:
    """The entries of the config in a checkpoint, as plain values for looking at, not for building.

    Empty if there is none that could be read.

    Raises:
        UserError: The checkpoint cannot be read.
    """
    try:
        return literal_entries(_text_inside(checkpoint) or '')
    except NOT_DATA:
        return {}


def _text_inside(checkpoint: Path) -> str | None:
    meta = read(checkpoint).get('meta')
    text = meta.get('cfg') if isinstance(meta, dict) else None
    return text if isinstance(text, str) else None


def own_config_hint(checkpoint: str | os.PathLike[str] | None, used: Config) -> str:
    """The end of a message about a checkpoint that does not fit the config that was used.

    It names the config that lies beside the checkpoint, if that is another.
    """
    if checkpoint is None or not os.path.isfile(checkpoint):
        return ''
    beside = newest_config(Path(checkpoint).parent)
    other = beside is not None and os.path.realpath(used.filename or '') != os.path.realpath(beside)
    return f'; the config beside it is {beside}' if other else ''


def _drop_places(value: Any) -> None:
    """Leave out where something would be written."""
    if isinstance(value, dict):
        for place in _PLACES:
            value.pop(place, None)
    for child in value.values() if isinstance(value, dict) else value:
        if isinstance(child, (dict, list, tuple)):
            _drop_places(child)


def _check_names(value: Any, key: str = '') -> None:
    """Make sure that nothing is named whose call could do harm.

    Raises:
        ValueError: A type is not among those known, or a module of one's own is to be imported.
    """
    if isinstance(value, dict):
        for inner, child in value.items():
            _check_names(child, str(inner))
    elif isinstance(value, (list, tuple, set)):
        for child in value:
            _check_names(child, key)
    elif key in _NAMES_OF_TYPES and isinstance(value, str) and value not in _TYPES:
        raise ValueError(
            f'it names {value!r}, which is not known to be harmless ({TRUST_VARIABLE}=1 if you '
            'trust it)'
        )
    elif key in ('default_scope', '_scope_') and value not in _SCOPES:
        raise ValueError(f'the scope {value!r} is another project')
    elif key == 'imports' and value not in _MODULES:
        raise ValueError(f'it imports the module {value}, which is code')

"""What is kept of a stranger's config: nothing that runs code, writes or calls somewhere.

A config that is read as data still says what is built with which arguments. Arguments that are
numbers cannot name a file; so text is kept under names only that are known not to be of a place to
write. What describes the detector and its data may hold no other text, since both would be others
without it; what says how a run goes loses it.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mpvit.files.untrusted import TRUST_VARIABLE

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
_MODULES = ('mpvit.register', 'mpvit.datasets.imagenet')
# Arguments whose text says how, or what is read. Of all others it could be a file to write, a
# module, an account or a server.
_TEXTS = frozenset(
    '_scope_ act_layer activation_checkpointing add_extra_convs ann ann_file arch backend bias '
    'box_format box_type checkpoint classes collect_device color_type console_log_level '
    'constructor crop_type data_root data_src dataset_type default_scope direction dtype edge '
    'ema_type exp_name extensions global_pool ignore_keys imdecode_backend img img_path imports '
    'input_key interpolation iou_mode layer log_level log_name loss_scale map_location meta_keys '
    'method_name metric metric_items mode monitor mp_start_method multiprocessing_context name '
    'norm_layer output_fmt pad_mode padding_mode palette param_name policies prefix project '
    'proposal_file reduction resize resize_type rule run_name runner_type save_best seg '
    'seg_map_path seg_map_suffix split style sync_bn type'.split()
)
_LEVELS = ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')
_DESCRIPTIONS = re.compile(
    r'model|data_preprocessor|optim_wrapper|param_scheduler|tta_model|\w+_(dataloader|pipeline)'
)
# Of weights that this project or torch knows; any other address is a stranger's.
_ADDRESSES = ('mpvit://', 'torchvision://')
# Where parts of a run would write, other than in its work folder.
_PLACES = (
    'artifact_location',
    'collect_dir',
    'config_save_file',
    'experiment_name',
    'filename_tmpl',
    'img_save_dir',
    'out_dir',
    'out_file_path',
    'outfile_prefix',
    'save_dir',
    'scalar_save_file',
    'test_out_dir',
    'tracking_uri',
)
_DRAWN = {'ToyDataset': 'data/toy', 'DigitsDataset': 'data/digits'}  # and where configs have them


def leave_out_places(value: Any) -> None:
    """Leave out where something would be written: outputs go into the folder of the run.

    Datasets that are drawn where they are missing are only read, unless they are in the place that
    configs of this project have.
    """
    if isinstance(value, dict):
        for place in _PLACES:
            value.pop(place, None)
        usual = _DRAWN.get(str(value.get('type')))
        if usual and 'data_root' in value:
            root = value['data_root']
            as_usual = isinstance(root, str) and root and Path(root) == Path(usual)
            value.pop('draw', None)
            if not as_usual or value.get('spec'):
                value['draw'] = False
    for child in value.values() if isinstance(value, dict) else value:
        if isinstance(child, (dict, list, tuple, set)):
            leave_out_places(child)


def check_harmless(entries: dict[str, Any]) -> None:
    """Make sure that building what a config describes could do no harm.

    Entries are changed in place: text that could be a place to write is left out of what says how a
    run goes, and weights at an address of a stranger are not asked for.

    Raises:
        ValueError: A part is not among those known, a module of one's own is to be imported, or
            the detector or its data are described with text that is not known to be harmless.
    """
    _check_names(entries)
    _leave_out_addresses(entries)
    for name, value in list(entries.items()):
        if _DESCRIPTIONS.fullmatch(name):
            for place, text in _unknown_texts(value, name):
                raise ValueError(
                    f'{place} is {str(text)[:60]!r}, which is not known to be harmless '
                    f'({TRUST_VARIABLE}=1 if you trust it)'
                )
        elif not _is_known(value, name):
            del entries[name]
        else:
            entries[name] = _without_unknown_texts(value, name)


def _is_known(value: Any, key: str) -> bool:
    """Whether a value is no text, or text that may stand under a name."""
    if isinstance(value, str):
        if key in ('log_level', 'console_log_level') and value not in _LEVELS:
            return False
        return key in _TEXTS and ('://' not in value or value.startswith(_ADDRESSES))
    return not isinstance(value, bytes)


def _unknown_texts(value: Any, key: str, place: str = '') -> Iterator[tuple[str, Any]]:
    place = place or key
    if isinstance(value, dict):
        for inner, child in value.items():
            yield from _unknown_texts(child, str(inner), f'{place}.{inner}')
    elif isinstance(value, (list, tuple, set)):
        for child in value:
            yield from _unknown_texts(child, key, place)
    elif not _is_known(value, key):
        yield place, value


def _without_unknown_texts(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        known = {name: child for name, child in value.items() if _is_known(child, str(name))}
        return {name: _without_unknown_texts(child, str(name)) for name, child in known.items()}
    if isinstance(value, (list, tuple, set)):
        kept = (_without_unknown_texts(child, key) for child in value if _is_known(child, key))
        return type(value)(kept)
    return value


def _leave_out_addresses(value: Any) -> None:
    """Leave out initial weights that a stranger would have downloaded: the checkpoint has all."""
    if isinstance(value, dict):
        given = value.get('init_cfg')
        if any('://' in str(text) for _, text in _unknown_texts(given, 'checkpoint')):
            value['init_cfg'] = None
    for child in value.values() if isinstance(value, dict) else value:
        if isinstance(child, (dict, list, tuple)):
            _leave_out_addresses(child)


def _check_names(value: Any, key: str = '') -> None:
    """Make sure that nothing is named whose call could do harm.

    Raises:
        ValueError: A type is not among those known, a module of one's own is to be imported, or
            classes are to be read from a file.
    """
    if isinstance(value, dict):
        for inner, child in value.items():
            _check_name_of_entry(inner)
            if isinstance(child, (str, bytes)) and (inner == 'classes' or key == 'metainfo'):
                raise ValueError(
                    f'{inner} is {str(child)[:60]!r}, for which a file of that name would be read '
                    f'({TRUST_VARIABLE}=1 if you trust it)'
                )
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


def _check_name_of_entry(name: Any) -> None:
    """Refuse what mmengine would write unescaped into the config of a run, which is code."""
    if isinstance(name, bytes) or not str(name).isprintable() or set(str(name)) & set('\'"\\{}'):
        raise ValueError(f'{str(name)[:60]!r} is no name of an entry')

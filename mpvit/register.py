"""Everything that this package changes in its process, in one list.

Importing this module does it, once: configs name it in ``custom_imports``, and `mpvit.inference`
imports it. Until then nothing outside of the package is touched, and mmdet cannot be imported
where mmcv came without its compiled ops.
"""

import contextlib
import importlib
import io
import os
import sys
import warnings

import mmdet.registry
import mmengine.runner.checkpoint
import mmengine.runner.runner
import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.fileio import LocalBackend, register_backend, register_handler
from mmengine.registry import WEIGHT_INITIALIZERS, Registry
from mmengine.runner import CheckpointLoader
from PIL import EpsImagePlugin

from mpvit import processors
from mpvit.files.writing import whole_file
from mpvit.ops import mmcv_bridge

MMDET = ('mmdet.datasets', 'mmdet.evaluation', 'mmdet.models')
# Whatever a config may name of this project; importing a module registers its classes in mmdet's
# and mmengine's registries.
MODULES = (
    'mpvit.datasets.coco',
    'mpvit.datasets.transforms',
    'mpvit.models.coat',
    'mpvit.models.detector',
    'mpvit.models.dino',
    'mpvit.models.head',
    'mpvit.models.mpvit',
    'mpvit.models.timm_backbone',
    'mpvit.models.timm_mpvit',
    'mpvit.engine.hooks.checkpoint_fit',
    'mpvit.evaluation.coco_metric',
    'mpvit.engine.hooks.checkpoint',
    'mpvit.engine.hooks.finite_steps',
    'mpvit.engine.hooks.screen',
    'mpvit.engine.optimizer',
    'mpvit.engine.runner',
    'mpvit.engine.hooks.prepare_inference',
    'mpvit.engine.trackers',
    'mpvit.engine.loop',
    'mpvit.engine.hooks.zero_ap',
)


def use_large_pages() -> None:
    """Keep large CPU tensors in pages of 2 MB: a fifth of the time goes into faults of small ones.

    PyTorch reads the variable at the first tensor; without effect if there was one already.
    """
    os.environ.setdefault('THP_MEM_ALLOC_ENABLE', '1')


def leave_busy_processors() -> None:
    """Use a thread less for every processor that other processes keep busy.

    ``OMP_NUM_THREADS``, which torchrun sets too, goes first.
    """
    if 'OMP_NUM_THREADS' not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), processors.threads()))


def import_mmdet() -> None:
    """Import what registers mmdet's modules, without its notes on optional packages.

    mmpretrain stays hidden from it: mmdet wants it for re-identification alone, its import takes
    seconds, and it fails beside transformers 5.
    """
    hidden = sys.modules.setdefault('mmpretrain', None) is None  # type: ignore[arg-type]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter('ignore')
        for name in MMDET:
            importlib.import_module(name)
    if hidden:
        del sys.modules['mmpretrain']
    # mmdet's, about a default of a later torch
    warnings.filterwarnings('ignore', message='torch.meshgrid: in an upcoming release')


def import_modules() -> None:
    """Register the modules of this project."""
    for name in MODULES:
        importlib.import_module(name)


def add_scope() -> None:
    """Let mmengine and mim name this project by the scope ``mpvit``.

    Our modules are in mmdet's scope, since they are parts of its detector. For
    ``_base_ = 'mpvit::...'``, ``mmengine.hub.get_config('mpvit::...')`` and
    ``DetInferencer(name, scope='mpvit')`` an empty registry lies below each of mmdet's, in which
    everything of mmdet and of ours is found.
    """
    MODULE2PACKAGE['mpvit'] = 'mpvit'  # the projects that mmengine knows
    for parent in [entry for entry in vars(mmdet.registry).values() if isinstance(entry, Registry)]:
        if parent.scope == 'mmdet':
            Registry(parent.name, parent=parent, scope='mpvit', locations=parent._locations)


def read_safely() -> None:
    """Replace mmengine's readers, which may execute a file, wait for a pipe or never end.

    Pillow may start no other program, which it does for PostScript.
    """
    from mpvit.checkpoints import loading

    for prefixes, loader in loading.LOADERS.items():
        CheckpointLoader.register_scheme(prefixes=prefixes, loader=loader, force=True)
    WEIGHT_INITIALIZERS.register_module(
        name='Pretrained', module=loading.CheckedPretrainedInit, force=True
    )
    mmengine.runner.checkpoint._safe_torch_load = loading.load
    mmengine.runner.checkpoint.load_url = loading.load_url
    register_handler(['pkl', 'pickle'])(loading.WriteOnlyPickle)
    register_handler(['yaml', 'yml'])(loading.SafeYaml)
    register_backend('local', loading.RegularFiles, force=True, prefixes='')
    register_backend('http', loading.LimitedHttp, force=True, prefixes=['http', 'https'])
    EpsImagePlugin.gs_binary = False


def write_durably() -> None:
    """Have mmengine write checkpoints, detections and pictures that are whole or not there."""
    from mpvit.engine.hooks.checkpoint import write_checkpoint
    from mpvit.files.writing import write

    mmengine.runner.runner.save_checkpoint = write_checkpoint
    LocalBackend.put = lambda backend, obj, filepath: write(filepath, obj)
    LocalBackend.put_text = lambda backend, obj, filepath, encoding='utf-8': write(filepath, obj)


def forget_annotations_before_forks() -> None:
    """Drop annotation files that were read, so that workers of dataloaders do not each keep one."""
    from mpvit.datasets.annotations import forget

    os.register_at_fork(before=forget)


def format_configs_once() -> None:
    """Keep the text of a config while it does not change: every checkpoint asks yapf for it."""
    format_config = Config.pretty_text.fget
    texts: dict[tuple[bool, str], str] = {}

    def pretty_text(config: Config) -> str:
        key = config._format_python_code, str(config.to_dict())
        if key not in texts:
            texts[key] = format_config(config)
        return texts[key]

    Config.pretty_text = property(pretty_text)


def write_configs_whole() -> None:
    """Let a config that a run leaves be whole or not there, as all that a run leaves."""
    dump = Config.dump

    def dump_whole(config: Config, file: str | os.PathLike[str] | None = None) -> str | None:
        if file is None:
            text: str | None = dump(config)
            return text
        with whole_file(file) as place:
            dump(config, place)
        return None

    Config.dump = dump_whole


use_large_pages()
mmcv_bridge.install()  # before anything imports mmdet's models
import_mmdet()
import_modules()
add_scope()
read_safely()
write_durably()
forget_annotations_before_forks()
format_configs_once()
write_configs_whole()
leave_busy_processors()  # last: until here it was measured what others do

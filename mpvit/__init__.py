"""Deformable DETR with an MPViT backbone, as an MMDetection project.

Importing this package makes mmdet importable where mmcv came without compiled ops
(`mpvit.ops.mmcv_bridge`) and registers our modules in mmdet's registries. Configs do it through
``custom_imports = dict(imports=['mpvit'])``.
"""

import contextlib
import io
import os
import warnings

# Large tensors on the CPU in pages of 2 MB: otherwise a fifth of the time goes into the faults of
# small ones. torch reads it at the first tensor; without effect if there was one already.
os.environ.setdefault('THP_MEM_ALLOC_ENABLE', '1')

from mpvit.deferred_imports import deferred
from mpvit.ops import mmcv_bridge

mmcv_bridge.install()  # must run before anything imports mmdet
with (
    warnings.catch_warnings(),
    contextlib.redirect_stdout(io.StringIO()),
    deferred('imgaug', 'imagecorruptions', 'sklearn'),
):
    # mmdet notes on import which optional packages it did not find; nothing here needs them
    warnings.simplefilter('ignore')
    import mmdet.datasets
    import mmdet.evaluation
    import mmdet.models  # noqa: F401
# mmdet's, about a default of a later torch
warnings.filterwarnings('ignore', message='torch.meshgrid: in an upcoming release')

from mpvit import datasets, engine, models, registry
from mpvit.config import get_config
from mpvit.version import __version__

__all__ = ['__version__', 'datasets', 'engine', 'get_config', 'models', 'registry']

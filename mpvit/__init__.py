"""Deformable DETR with an MPViT backbone, as an MMDetection project.

Importing this package does nothing else: `mpvit.register` puts its parts in the reach of mmdet.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpvit.config.reading import load_config as get_config

__version__ = '0.1.0'
__all__ = ['__version__', 'get_config']


def __getattr__(name: str) -> Any:
    if name == 'get_config':
        importlib.import_module('mpvit.register')  # a config may inherit from `mpvit::...`
        from mpvit.config.reading import load_config as get_config

        return get_config
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

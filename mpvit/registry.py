"""The scope `mpvit` in mmengine's registries, which are otherwise mmdet's.

Our modules are registered in mmdet's scope, since they are parts of its detector. mmengine and
mim name projects by scopes, too: ``_base_ = 'mpvit::deformable_detr/mpvit_s_ddetr_50e.py'``,
``mmengine.hub.get_config('mpvit::...')``, ``DetInferencer(name, scope='mpvit')``. For them there is
an empty registry below each of mmdet's, in which everything of mmdet and of ours is found.
"""

import mmdet.registry
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import Registry

MODULE2PACKAGE['mpvit'] = 'mpvit'  # the projects that mmengine knows
for parent in [entry for entry in vars(mmdet.registry).values() if isinstance(entry, Registry)]:
    if parent.scope == 'mmdet':
        Registry(parent.name, parent=parent, scope='mpvit', locations=parent._locations)

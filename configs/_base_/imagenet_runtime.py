# What trainings of classifiers share: mmpretrain's modules by their names, accuracy in the place
# of AP, and an average of the weights, which is what is evaluated and saved as `state_dict`.
_base_ = './default_runtime.py'

default_scope = 'mmpretrain'  # a module of mmdet or of this project is 'mmdet.NAME'
custom_imports = dict(
    imports=['mpvit.register', 'mpvit.datasets.imagenet'], allow_failed_imports=False
)
default_hooks = dict(
    logger=dict(interval=100),
    checkpoint=dict(save_best='accuracy/top1'),
    visualization=dict(_delete_=True, type='VisualizationHook', enable=False),
)
custom_hooks = [
    dict(type='SyncBuffersHook'),
    dict(type='EMAHook', ema_type='SharedWeightsEMA', momentum=1 - 0.99996),  # with batch norm's
]
visualizer = dict(type='UniversalVisualizer')

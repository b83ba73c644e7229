# What every run shares: registration, hooks, logging, seeds.
default_scope = 'mmdet'
custom_imports = dict(imports=['mpvit.register'], allow_failed_imports=False)
runner_type = 'PortableRunner'  # mmengine's Runner that also runs distributed without a GPU

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # whole files only; inside long epochs too
    checkpoint=dict(
        type='DurableCheckpointHook',
        interval=1,
        max_keep_ckpts=3,
        save_best='coco/bbox_mAP',
        minutes=30,
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='DetVisualizationHook'),
    checkpoint_fit=dict(type='CheckpointFitHook'),  # refuse a checkpoint of another model
    screen=dict(type='ScreenHook'),  # a few lines, a progress bar and the results
    finite=dict(type='FiniteStepHook'),  # end training after 10 steps in a row that are not finite
)
custom_hooks = [
    dict(type='NumClassCheckHook'),  # num_classes of the head against classes of the dataset
    dict(type='ZeroAPHook'),  # an AP of 0 in the first evaluations: the causes that were found
    dict(type='SyncBuffersHook'),  # ranks agree on batch norm statistics before they evaluate
]

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
randomness = dict(seed=42, diff_rank_seed=True)  # official: 42 + rank

# TensorBoard; W&B and MLflow with --track (docs/tracking.md)
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardTracker')]
visualizer = dict(type='DetLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
log_level = 'INFO'  # of the log file; the terminal shows what ScreenHook prints, and warnings
console_log_level = 'WARNING'
load_from = None
resume = False

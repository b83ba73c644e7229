# ResNet-50 with DINO in 12 epochs. Published COCO val2017 box AP: 49.0.
_base_ = [
    '../_base_/models/dino.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_12e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        type='ResNet',
        depth=50,
        num_stages=4,
        out_indices=(1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        style='pytorch',
        init_cfg=dict(type='Pretrained', checkpoint='mpvit://resnet50_in1k'),
    ),
    neck=dict(in_channels=[512, 1024, 2048]),
)

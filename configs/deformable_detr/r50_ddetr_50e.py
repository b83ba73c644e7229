# ResNet-50, the baseline. Published COCO val2017 box AP: 44.5.
_base_ = [
    '../_base_/models/deformable_detr.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_50e.py',
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
auto_scale_lr = dict(base_batch_size=32)  # 16 GPUs x 2 images, as published

# MPViT-Small. Published COCO val2017 box AP: 49.0.
_base_ = [
    '../_base_/models/deformable_detr.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_50e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        type='MPViT',
        arch='small',
        out_indices=(1, 2, 3),
        # trained and synchronised over the GPUs, as published
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        init_cfg=dict(type='Pretrained', checkpoint='mpvit://mpvit_small_in1k'),
    ),
    neck=dict(in_channels=[216, 288, 288]),
)

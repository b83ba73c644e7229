# MPViT-Small with DINO in 12 epochs. No result was published for it, and none was measured.
_base_ = [
    '../_base_/models/dino.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_12e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        type='MPViT',
        arch='small',
        out_indices=(1, 2, 3),
        norm_cfg=dict(type='SyncBN', requires_grad=True),  # trained and synchronised
        init_cfg=dict(type='Pretrained', checkpoint='mpvit://mpvit_small_in1k'),
    ),
    neck=dict(in_channels=[216, 288, 288]),
)

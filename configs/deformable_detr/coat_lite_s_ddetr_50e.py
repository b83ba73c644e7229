# CoaT-Lite Small. Published COCO val2017 box AP: 47.0.
_base_ = [
    '../_base_/models/deformable_detr.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_50e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        type='CoaT',
        arch='lite_small',
        out_indices=(1, 2, 3),
        drop_path_rate=0.0,
        init_cfg=dict(type='Pretrained', checkpoint='mpvit://coat_lite_small_in1k'),
    ),
    neck=dict(in_channels=[128, 320, 512]),
)
# the published evaluation took one image at a time, so none was padded
val_dataloader = dict(batch_size=1)
test_dataloader = val_dataloader

# CoaT Small. Published COCO val2017 box AP: 48.4.
_base_ = './coat_lite_s_ddetr_50e.py'

model = dict(
    backbone=dict(
        arch='small',
        drop_path_rate=0.2,  # the same rate in every layer
        init_cfg=dict(checkpoint='mpvit://coat_small_in1k'),
    ),
    neck=dict(in_channels=[320, 320, 320]),
)

# MPViT-Base. No detection result was published for this size.
_base_ = './mpvit_s_ddetr_50e.py'

model = dict(
    backbone=dict(
        arch='base',
        init_cfg=dict(checkpoint='mpvit://mpvit_base_in1k'),
    ),
    neck=dict(in_channels=[368, 480, 480]),
)

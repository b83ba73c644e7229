# MPViT-Tiny. No detection result was published for this size.
_base_ = './mpvit_s_ddetr_50e.py'

model = dict(
    backbone=dict(
        arch='tiny',
        init_cfg=dict(checkpoint='mpvit://mpvit_tiny_in1k'),
    ),
    neck=dict(in_channels=[176, 216, 216]),
)

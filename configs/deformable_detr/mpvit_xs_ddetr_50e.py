# MPViT-XSmall. No detection result was published for this size.
_base_ = './mpvit_s_ddetr_50e.py'

model = dict(
    backbone=dict(
        arch='xsmall',
        init_cfg=dict(checkpoint='mpvit://mpvit_xsmall_in1k'),
    ),
    neck=dict(in_channels=[192, 256, 256]),
)

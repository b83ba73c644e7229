# MPViT-XSmall. No detection result was published for this size.
_base_ = './mpvit_s_ddetr_50e.py'

model = dict(
    backbone=dict(arch='xsmall'),
    neck=dict(in_channels=[192, 256, 256]),
)

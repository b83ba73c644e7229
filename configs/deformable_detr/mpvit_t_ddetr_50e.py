# MPViT-Tiny. No detection result was published for this size.
_base_ = './mpvit_s_ddetr_50e.py'

model = dict(
    backbone=dict(arch='tiny'),
    neck=dict(in_channels=[176, 216, 216]),
)

# MPViT-Base. No detection result was published for this size.
_base_ = './mpvit_s_ddetr_50e.py'

model = dict(
    backbone=dict(arch='base'),
    neck=dict(in_channels=[368, 480, 480]),
)

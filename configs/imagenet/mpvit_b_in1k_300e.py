# MPViT-Base on ImageNet-1K. Published top-1 accuracy: 84.3.
_base_ = [
    '../_base_/models/mpvit_classifier.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_300e.py',
    '../_base_/imagenet_runtime.py',
]

model = dict(backbone=dict(arch='base', drop_path_rate=0.3), head=dict(in_channels=480))

# MPViT with ImageNet's head: the mean over the last map and one linear layer. A leaf adds
# `backbone.arch`, `backbone.drop_path_rate` and `head.in_channels`.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        num_classes=1000,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(
        type='mmdet.MPViT',
        out_indices=(3,),
        norm_cfg=dict(type='BN'),  # not synchronised over the GPUs, which the detector's is
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
    ),
    # one of the two for each batch, by a coin
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)

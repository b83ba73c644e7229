# A narrowed MPViT-Tiny on the toy dataset (mpvit/datasets/toy.py): the whole pipeline in minutes
# on a CPU. The base recipe, shrunk in image size, width, depth and queries, with box refinement
# and two stages, without which so short a training finds little.
_base_ = './mpvit_t_ddetr_50e.py'

data_root = 'data/toy/'
EMBED_DIMS = 128
EPOCHS = 14
attention = dict(embed_dims=EMBED_DIMS, num_heads=4, num_levels=2, dropout=0.0)
ffn = dict(embed_dims=EMBED_DIMS, feedforward_channels=256, ffn_drop=0.0)

model = dict(
    num_queries=30,
    num_feature_levels=2,
    with_box_refine=True,
    as_two_stage=True,
    # one size for all, so that results do not depend on which images share a batch
    data_preprocessor=dict(pad_size_divisor=128),
    backbone=dict(
        _delete_=True,  # without the ImageNet weights of a published arch
        type='MPViT',
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        arch=dict(
            embed_dims=(32, 64, 128, 160),
            num_layers=(1, 1, 2, 1),
            num_paths=(2, 2, 2, 2),
            mlp_ratio=2,
        ),
        out_indices=(1, 2),  # strides 8 and 16; the last stage is not built
    ),
    neck=dict(in_channels=[128, 160], out_channels=EMBED_DIMS, num_outs=2),
    encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
    decoder=dict(
        num_layers=2,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=EMBED_DIMS, num_heads=4, dropout=0.0),
            cross_attn_cfg=attention,
            ffn_cfg=ffn,
        ),
    ),
    positional_encoding=dict(num_feats=EMBED_DIMS // 2),
    bbox_head=dict(num_classes=6, embed_dims=EMBED_DIMS),
)

small = dict(type='Resize', scale=(128, 128), keep_ratio=True, backend='pillow')
train_pipeline = [
    {{_base_.load_image}},
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    small,
    dict(type='PackDetInputs'),
]
test_pipeline = [
    {{_base_.load_image}},
    small,
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
toy = dict(type='ToyDataset', data_root=data_root)
loader = dict(batch_size=16, num_workers=0, persistent_workers=False)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **toy), **loader)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **toy), **loader)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator

# one learning rate for everything, gradients clipped more loosely, warm-up and cosine decay
optim_wrapper = dict(
    optimizer=dict(lr=1.5e-3),
    clip_grad=dict(max_norm=1.0),
    paramwise_cfg=dict(_delete_=True),
)
train_cfg = dict(max_epochs=EPOCHS, val_interval=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.02, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, T_max=EPOCHS, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=16)
default_hooks = dict(logger=dict(interval=10))

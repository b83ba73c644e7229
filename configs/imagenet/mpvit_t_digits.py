# A narrowed MPViT-Tiny on handwritten digits: pretraining in a minute and a half on a CPU.
# Its backbone is that of ../deformable_detr/mpvit_t_ddetr_toy.py, which can start from it.
_base_ = './mpvit_t_in1k_300e.py'

data_root = 'data/digits/'
EPOCHS = 8

model = dict(
    data_preprocessor=dict(num_classes=10),
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=(32, 64, 128, 160),
            num_layers=(1, 1, 2, 1),
            num_paths=(2, 2, 2, 2),
            mlp_ratio=2,
        ),
    ),
    head=dict(in_channels=160, num_classes=10),
)

train_pipeline = [
    {{_base_.load_image}},
    dict(
        type='RandomResizedCrop',
        scale=64,
        crop_ratio_range=(0.6, 1.0),
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='PackInputs'),
]
test_pipeline = [
    {{_base_.load_image}},
    dict(type='Resize', scale=(64, 64), backend='pillow', interpolation='bicubic'),
    dict(type='PackInputs'),
]
digits = dict(_delete_=True, type='DigitsDataset', data_root=data_root)
loader = dict(batch_size=64, num_workers=0, persistent_workers=False)
train_dataloader = dict(
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
    dataset=dict(split='train', pipeline=train_pipeline, **digits),
    **loader,
)
val_dataloader = dict(dataset=dict(split='val', pipeline=test_pipeline, **digits), **loader)
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=2e-3))
train_cfg = dict(max_epochs=EPOCHS, val_interval=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.02, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', by_epoch=True, T_max=EPOCHS, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=64)
default_hooks = dict(logger=dict(interval=10))
custom_hooks = [
    dict(type='SyncBuffersHook'),
    dict(type='EMAHook', ema_type='SharedWeightsEMA', momentum=0.05),  # of the last 20 steps
]

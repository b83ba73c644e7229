# The ImageNet schedule of DeiT and CoaT: AdamW on 1024 images a step, 5 epochs of warm-up from
# 1e-6, cosine to 1e-5 at epoch 300, then 10 epochs at that. Nothing is clipped.
epochs, cool_down = 300, 10
train_cfg = dict(type='ResumableTrainLoop', max_epochs=epochs + cool_down, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='FiniteOptimWrapper',
    constructor='MergedOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, eps=1e-8, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
# both once an epoch, and the cosine from epoch 0 on, as timm's scheduler does it
param_scheduler = [
    dict(type='CosineAnnealingLR', by_epoch=True, T_max=epochs, end=epochs, eta_min=1e-5),
    dict(type='LinearLR', by_epoch=True, start_factor=1e-3, end=6),  # reaches 1 at epoch 5
]
auto_scale_lr = dict(enable=True, base_batch_size=1024, rule='linear')

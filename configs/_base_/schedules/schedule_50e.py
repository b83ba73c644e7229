# The official 50-epoch schedule: AdamW, everything decayed, lr dropped tenfold after epoch 40.
max_epochs = 50
train_cfg = dict(type='ResumableTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='FiniteOptimWrapper',  # leaves out steps whose gradients are not finite
    # mmengine's, but one group for parameters of equal settings, and fused steps where torch can
    constructor='MergedOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    paramwise_cfg=dict(
        custom_keys={
            'backbone': dict(lr_mult=0.1),
            'sampling_offsets': dict(lr_mult=0.1),
            'reference_points': dict(lr_mult=0.1),
        }
    ),
)
param_scheduler = [
    dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[40], gamma=0.1)
]

# The lr is for 8 GPUs x 2 images and follows the images of a step from there, linearly as in mmdet
# or by rule='sqrt', which suits AdamW; on the command line --auto-scale-lr linear, sqrt or off.
auto_scale_lr = dict(enable=True, base_batch_size=16, rule='linear')

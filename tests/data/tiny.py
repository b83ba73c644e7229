# The toy config on a handful of images and steps, for tests. `data_root` is set by them.
_base_ = '../../configs/deformable_detr/mpvit_t_ddetr_toy.py'

console_log_level = 'INFO'  # tests read what is said

spec = dict(train_images=8, val_images=6, empty=0.3)
narrow = dict(
    _delete_=True,
    embed_dims=(16, 24, 32, 40),
    num_layers=(1, 1, 1, 1),
    mlp_ratio=2,
    num_paths=(2, 2, 2, 2),
)
model = dict(backbone=dict(arch=narrow), neck=dict(in_channels=[32, 40]))
train_dataloader = dict(batch_size=4, dataset=dict(spec=spec))
val_dataloader = dict(batch_size=4, dataset=dict(spec=spec))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=2, val_interval=1)

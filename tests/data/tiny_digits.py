# A few steps on a few digits, with the backbone of tiny.py, for tests. `data_root` is set by them.
_base_ = '../../configs/imagenet/mpvit_t_digits.py'

narrow = dict(
    _delete_=True,
    embed_dims=(16, 24, 32, 40),
    num_layers=(1, 1, 1, 1),
    mlp_ratio=2,
    num_paths=(2, 2, 2, 2),
)
model = dict(backbone=dict(arch=narrow), head=dict(in_channels=40))
train_dataloader = dict(
    batch_size=8,
    sampler=dict(_delete_=True, type='RepeatAugSampler', num_repeats=3),  # as on ImageNet
    dataset=dict(indices=[*range(0, 1437, 60)]),
)
val_dataloader = dict(batch_size=8, dataset=dict(indices=[*range(0, 360, 24)]))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=2, val_interval=1)

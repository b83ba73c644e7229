# DINO with a narrowed MPViT-Tiny on the toy dataset, for comparison with mpvit_t_ddetr_toy.
# Data, sizes and steps are those of that config, and so is the weight of the class loss, 2. This
# weight and the learning rate were chosen in one run each (README.md beside this file).
_base_ = '../deformable_detr/mpvit_t_ddetr_toy.py'

model = dict(
    type='AnyWidthDINO',
    neck=dict(bias='auto'),
    positional_encoding=dict(offset=0.0, temperature=20),
    bbox_head=dict(type='OfficialDINOHead'),
    dn_cfg=dict(
        label_noise_scale=0.5,
        box_noise_scale=1.0,
        group_cfg=dict(dynamic=True, num_groups=None, num_dn_queries=20),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=2e-3))

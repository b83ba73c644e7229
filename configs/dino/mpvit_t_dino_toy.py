# DINO with the narrowed MPViT-Tiny on the toy dataset: data, sizes and steps of
# deformable_detr/mpvit_t_ddetr_toy.py, for comparing the two detectors.
_base_ = '../deformable_detr/mpvit_t_ddetr_toy.py'

no_dropout = dict(dropout=0.0)

model = dict(
    type='AnyWidthDINO',
    neck=dict(bias='auto'),
    encoder=dict(layer_cfg=dict(self_attn_cfg=no_dropout)),
    positional_encoding=dict(offset=0.0, temperature=20),
    bbox_head=dict(type='OfficialDINOHead', loss_cls=dict(loss_weight=1.0)),
    dn_cfg=dict(
        label_noise_scale=0.5,
        box_noise_scale=1.0,
        group_cfg=dict(dynamic=True, num_groups=None, num_dn_queries=20),
    ),
)

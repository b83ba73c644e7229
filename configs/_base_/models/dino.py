# DINO (Zhang et al., ICLR 2023) with four scales and without a backbone: what differs from
# Deformable DETR. Settings are those of mmdet's dino-4scale_r50_8xb2-12e_coco.
_base_ = './deformable_detr.py'

ffn = dict(feedforward_channels=2048, ffn_drop=0.0)

model = dict(
    type='AnyWidthDINO',  # mmdet's DINO with the decoder as published
    num_queries=900,
    with_box_refine=True,
    as_two_stage=True,
    neck=dict(bias='auto'),  # none beside a norm
    encoder=dict(layer_cfg=dict(self_attn_cfg=dict(dropout=0.0), ffn_cfg=ffn)),
    decoder=dict(
        layer_cfg=dict(
            self_attn_cfg=dict(dropout=0.0),
            cross_attn_cfg=dict(dropout=0.0),
            ffn_cfg=ffn,
        )
    ),
    positional_encoding=dict(offset=0.0, temperature=20),
    bbox_head=dict(
        type='OfficialDINOHead',  # mmdet's, without clipping detections to the image
        loss_cls=dict(loss_weight=1.0),
    ),
    dn_cfg=dict(
        label_noise_scale=0.5,
        box_noise_scale=1.0,
        group_cfg=dict(dynamic=True, num_groups=None, num_dn_queries=100),
    ),
    test_cfg=dict(max_per_img=300),
)

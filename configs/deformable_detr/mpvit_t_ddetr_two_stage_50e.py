# MPViT-Tiny with box refinement and two stages, and half the layers: the middle between the toy
# and the published sizes, for `--image-size 320` to 640.
_base_ = './mpvit_t_ddetr_50e.py'

model = dict(
    with_box_refine=True,
    as_two_stage=True,
    encoder=dict(num_layers=3),
    decoder=dict(num_layers=3),
)

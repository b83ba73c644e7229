# MPViT-Small with box refinement and two stages. No result was published for it.
_base_ = './mpvit_s_ddetr_refine_50e.py'

model = dict(as_two_stage=True)

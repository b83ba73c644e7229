# MPViT-Small with iterative box refinement. No result was published for it.
_base_ = './mpvit_s_ddetr_50e.py'

model = dict(with_box_refine=True)

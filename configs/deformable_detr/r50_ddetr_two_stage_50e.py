# ResNet-50 with box refinement and two stages.
_base_ = './r50_ddetr_refine_50e.py'

model = dict(as_two_stage=True)

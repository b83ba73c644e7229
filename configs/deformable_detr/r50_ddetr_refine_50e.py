# ResNet-50 with iterative box refinement.
_base_ = './r50_ddetr_50e.py'

model = dict(with_box_refine=True)

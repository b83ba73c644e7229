"""COCO's numbers, and what a detector gets right and wrong; nothing is drawn.

Only `mpvit.evaluation.coco_metric` imports torch and mmdet, so that the tools that draw start at
once.
"""

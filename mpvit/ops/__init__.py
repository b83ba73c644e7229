"""Multi-scale deformable attention, and what mmdet needs of mmcv's compiled ops."""

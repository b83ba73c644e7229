# COCO 2017 detection with the official Deformable DETR augmentation and evaluation. Where
# mmdet's stock config differs, the official side is followed; each such line says so.
dataset_type = 'OfficialCocoDataset'  # images by ascending id, boxes under one pixel are kept
data_root = 'data/coco/'
backend_args = None

# Decoded by Pillow (mmdet: cv2, equal for JPEG), ignoring the EXIF orientation, for which COCO's
# boxes were not turned (mmdet obeys it).
load_image = dict(
    type='LoadImageFromFile',
    imdecode_backend='pillow',
    color_type='color_ignore_orientation',
    backend_args=backend_args,
)
# The official rounding of the long side (mmdet: another one) and Pillow's antialiased filter
# (mmdet: cv2, which does not antialias when shrinking).
resize = 'ShortSideResize'
scales = [(short, 1333) for short in range(480, 801, 32)]

train_pipeline = [
    load_image,
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomChoice',
        transforms=[
            [dict(type='RandomChoiceResize', scales=scales, resize_type=resize)],
            [
                # no limit on the long side here
                dict(type='RandomChoiceResize', scales=[400, 500, 600], resize_type=resize),
                dict(
                    type='RandomCrop',
                    crop_type='absolute_range',
                    crop_size=(384, 600),
                    allow_negative_crop=True,
                ),
                dict(type='RandomChoiceResize', scales=scales, resize_type=resize),
            ],
        ],
    ),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    load_image,
    dict(type=resize, scale=(800, 1333)),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]

train_dataloader = dict(
    batch_size=2,
    num_workers=2,  # about 50 images/s a core, several times what a GPU trains (docs/train.md)
    persistent_workers=True,
    drop_last=True,  # official; and no grouping by aspect ratio (mmdet: AspectRatioBatchSampler)
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        # every image is used, also without annotations (mmdet: none under 32 px either)
        filter_cfg=dict(filter_empty_gt=False, min_size=0),
        pipeline=train_pipeline,
        backend_args=backend_args,
    ),
)
val_dataloader = dict(
    batch_size=2,  # official (mmdet: 1); padding to a common size has a small effect on results
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=test_pipeline,
        backend_args=backend_args,
    ),
)
test_dataloader = val_dataloader

# Prints and returns COCO's 12 numbers, average recall at 1, 10 and 100 detections (mmdet: at
# 100, 300 and 1000).
val_evaluator = dict(
    type='CocoBoxMetric',
    ann_file=data_root + 'annotations/instances_val2017.json',
    backend_args=backend_args,
)
test_evaluator = val_evaluator

# `tools/test.py --tta`: the image and its mirror image, merged by non-maximum suppression.
tta_model = dict(
    type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.7), max_per_img=100)
)

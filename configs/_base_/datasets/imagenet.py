# ImageNet-1K as DeiT and CoaT train on it: `train/<class>/*.JPEG` and `val/<class>/*.JPEG`.
# The published arguments also name a colour jitter of 0.4, which timm leaves out where RandAugment
# is on; so is it here. To have it, put dict(type='ColorJitter', brightness=0.4, contrast=0.4,
# saturation=0.4) after RandomFlip.
data_root = 'data/imagenet/'
mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]  # RGB; images are BGR until packed

# Decoded by Pillow, ignoring the EXIF orientation, as torchvision's ImageFolder does.
load_image = dict(
    type='LoadImageFromFile', imdecode_backend='pillow', color_type='color_ignore_orientation'
)
train_pipeline = [
    load_image,
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(  # timm's rand-m9-mstd0.5-inc1
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        magnitude_level=9,
        magnitude_std=0.5,
        total_level=10,
        hparams=dict(pad_val=[round(value) for value in mean[::-1]], interpolation='bicubic'),
    ),
    dict(  # every pixel another colour
        type='RandomErasing',
        erase_prob=0.25,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=mean[::-1],
        fill_std=std[::-1],
    ),
    dict(type='PackInputs'),
]
test_pipeline = [
    load_image,
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=128,
    num_workers=10,
    persistent_workers=True,
    drop_last=True,
    # every image of an epoch three times, differently augmented, and a third of the images
    sampler=dict(type='RepeatAugSampler', num_repeats=3),
    dataset=dict(type='ImageNet', data_root=data_root, split='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=10,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='ImageNet', data_root=data_root, split='val', pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, 5))  # in percent
test_evaluator = val_evaluator

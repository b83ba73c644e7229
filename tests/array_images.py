"""A transform that reads the fixtures' images, which are arrays of normalised numbers."""

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadArray(BaseTransform):
    """Load a ``(3, H, W)`` float array; the original size is the one the annotations state."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        image = np.load(results['img_path']).transpose(1, 2, 0)
        height, width = image.shape[:2]
        ori_height, ori_width = results['height'], results['width']
        return dict(
            results,
            img=image,
            img_shape=(height, width),
            ori_shape=(ori_height, ori_width),
            scale_factor=(width / ori_width, height / ori_height),
        )

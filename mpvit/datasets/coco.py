"""COCO annotations read the way the official code reads them."""

from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS


@DATASETS.register_module()
class OfficialCocoDataset(CocoDataset):
    """A `CocoDataset` that keeps every box with an area and lists images by ascending id.

    mmdet leaves out boxes with a side under one pixel or a stated area of 0, and takes the images
    in the order of the file, which decides about the padding of evaluation batches. Crowd boxes
    are kept as ignored ones, as in mmdet; DETR heads do not train on them.
    """

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the annotation file; see `CocoDataset.load_data_list`."""
        return sorted(super().load_data_list(), key=lambda info: info['img_id'])

    def parse_data_info(self, raw_data_info: dict[str, Any]) -> dict[str, Any]:
        """Turn one image's raw annotations into mmdet's format.

        Args:
            raw_data_info: ``raw_img_info`` and ``raw_ann_info`` as read from the file.

        Returns:
            The image's record; ``instances`` hold boxes ``(x1, y1, x2, y2)`` within the image.
        """
        image = raw_data_info['raw_img_info']
        info: dict[str, Any] = super().parse_data_info(dict(raw_img_info=image, raw_ann_info=[]))
        parsed = (self._parse_annotation(raw, image) for raw in raw_data_info['raw_ann_info'])
        info['instances'] = [instance for instance in parsed if instance is not None]
        return info

    def _parse_annotation(
        self, raw: dict[str, Any], image: dict[str, Any]
    ) -> dict[str, Any] | None:
        """One instance, or None if it has no area within the image or no class of ours."""
        if raw.get('ignore', False) or raw['category_id'] not in self.cat2label:
            return None
        x, y, width, height = raw['bbox']
        x1, x2 = (min(max(value, 0), image['width']) for value in (x, x + width))
        y1, y2 = (min(max(value, 0), image['height']) for value in (y, y + height))
        if x2 <= x1 or y2 <= y1:
            return None
        instance = dict(
            bbox=[x1, y1, x2, y2],
            bbox_label=self.cat2label[raw['category_id']],
            ignore_flag=int(bool(raw.get('iscrowd', False))),
        )
        if raw.get('segmentation'):
            instance['mask'] = raw['segmentation']
        return instance

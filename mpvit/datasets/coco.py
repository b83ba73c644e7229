"""COCO annotations read the way the official code reads them."""

import difflib
import json
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS

from mpvit.errors import UserError


@DATASETS.register_module()
class OfficialCocoDataset(CocoDataset):
    """A `CocoDataset` that keeps every box with an area and lists images by ascending id.

    mmdet leaves out boxes with a side under one pixel or a stated area of 0, and takes the images
    in the order of the file, which decides about the padding of evaluation batches. Crowd boxes
    are kept as ignored ones, as in mmdet; DETR heads do not train on them.

    mmengine keeps the records in one array, which the workers of a dataloader share. Masks are
    left out of it: they are most of an annotation file, and detectors of boxes have no use for
    them.

    Args:
        *args: As for `CocoDataset`.
        masks: Keep the masks, for a pipeline that loads them.
        **kwargs: As for `CocoDataset`.
    """

    _classes_checked = False

    def __init__(self, *args: Any, masks: bool = False, **kwargs: Any) -> None:
        self._masks = masks
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the annotation file; see `CocoDataset.load_data_list`.

        Raises:
            UserError: The file is no COCO JSON, or its categories are not the dataset's classes
                in the same order.
        """
        try:
            infos = super().load_data_list()
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(f'annotation file {self.ann_file} is no valid JSON: {error}') from error
        except KeyError as error:
            raise UserError(
                f'annotation file {self.ann_file} is not in COCO format: no entry {error}'
            ) from error
        return sorted(infos, key=lambda info: info['img_id'])

    def parse_data_info(self, raw_data_info: dict[str, Any]) -> dict[str, Any]:
        """Turn one image's raw annotations into mmdet's format.

        Args:
            raw_data_info: ``raw_img_info`` and ``raw_ann_info`` as read from the file.

        Returns:
            The image's record; ``instances`` hold boxes ``(x1, y1, x2, y2)`` within the image.
        """
        self._check_classes()
        image = raw_data_info['raw_img_info']
        info: dict[str, Any] = super().parse_data_info(dict(raw_img_info=image, raw_ann_info=[]))
        parsed = (self._parse_annotation(raw, image) for raw in raw_data_info['raw_ann_info'])
        info['instances'] = [instance for instance in parsed if instance is not None]
        return info

    def _check_classes(self) -> None:
        """Compare names with the file, once; labels are numbered in the file's order."""
        if self._classes_checked:
            return
        self._classes_checked = True
        classes = list(self.metainfo['classes'])
        names = [category['name'] for category in self.coco.dataset['categories']]
        unknown = [name for name in classes if name not in names]
        if unknown:
            close = difflib.get_close_matches(unknown[0], names, n=1)
            hint = f'; did you mean {close[0]!r}?' if close else ''
            raise UserError(
                f'annotation file {self.ann_file} has no category {unknown[0]!r}{hint} '
                f'({len(unknown)} of {len(classes)} classes in metainfo are unknown)'
            )
        in_file = [name for name in names if name in classes]
        if in_file != classes:
            raise UserError(
                f'annotation file {self.ann_file} lists its categories in another order than '
                f'metainfo; set metainfo.classes to {tuple(in_file)}'
            )

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
        if self._masks and raw.get('segmentation'):
            instance['mask'] = raw['segmentation']
        return instance

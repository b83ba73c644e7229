"""COCO annotations read the way the official code reads them."""

import json
import math
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS

from mpvit.datasets.unreadable_images import SkippedImages, check_folder, why_unreadable
from mpvit.errors import UserError, did_you_mean

_MAX_SKIPPED = 'train_dataloader.dataset.max_skipped_images'


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
        max_skipped_images: In training, take another image in the place of one that cannot be
            read, for up to that many different images; 0 for none. Workers count together, each
            process of a distributed run by itself. In evaluation every image has to be read.
        **kwargs: As for `CocoDataset`.
    """

    _file_checked = False
    _skipped: SkippedImages | None = None

    def __init__(
        self, *args: Any, masks: bool = False, max_skipped_images: int = 0, **kwargs: Any
    ) -> None:
        self._masks = masks
        self.max_skipped_images = max_skipped_images
        super().__init__(*args, **kwargs)

    def full_init(self) -> None:
        """Read everything; see `CocoDataset.full_init`."""
        super().full_init()
        if self._skipped is None and self.max_skipped_images and not self.test_mode:
            # before workers are started, which share it
            self._skipped = SkippedImages(len(self), self.max_skipped_images)

    def prepare_data(self, idx: int) -> Any:
        """Load an image and its boxes and augment them; see `CocoDataset.prepare_data`.

        Args:
            idx: Index of the image.

        Returns:
            The sample; None for an image that is left out, for which another one is drawn from
            numpy's random numbers.

        Raises:
            UserError: The image cannot be read and may not be left out.
        """
        try:
            return super().prepare_data(idx)
        except UserError:
            raise
        except Exception as error:
            path = self.get_data_info(idx)['img_path']
            reason = why_unreadable(path, self.pipeline.transforms)
            if reason is None:
                raise
            self._leave_out(idx, path, reason, error)
            return None

    def _leave_out(self, idx: int, path: str, reason: str, error: Exception) -> None:
        """Count an image that cannot be read, or say why it ends the run."""
        for folder in (self.data_root, self.data_prefix.get('img')):
            check_folder(folder)
        if self._skipped is not None and self._skipped.add(idx, path, reason):
            return
        if self.test_mode:
            rule = 'evaluation leaves none out'
        elif self._skipped is None:
            rule = f'or allow some with {_MAX_SKIPPED}=N'
        else:
            rule = f'{self._skipped.count} is more than {_MAX_SKIPPED}={self.max_skipped_images}'
        where = self.data_root or self.data_prefix.get('img') or 'DIR'
        raise UserError(
            f'image {path} cannot be read ({reason}): run tools/check_dataset.py {where}; {rule}',
            every_rank=True,
        ) from error

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the annotation file; see `CocoDataset.load_data_list`.

        Raises:
            UserError: The file is no COCO JSON, contradicts itself, or its categories are not the
                dataset's classes in the same order.
        """
        try:
            infos = super().load_data_list()
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(f'annotation file {self.ann_file} is no valid JSON: {error}') from error
        except KeyError as error:
            raise self._malformed(f'no entry {error}') from error
        except (AssertionError, AttributeError, TypeError) as error:
            raise self._malformed(str(error)) from error
        if not infos:
            raise UserError(f'annotation file {self.ann_file} lists no image')
        if not self.test_mode and not any(info['instances'] for info in infos):
            raise UserError(
                f'annotation file {self.ann_file} has no box to train on: no annotation of these '
                'classes has an area within its image'
            )
        return sorted(infos, key=lambda info: info['img_id'])

    def _malformed(self, reason: str) -> UserError:
        return UserError(f'annotation file {self.ann_file} is not in COCO format: {reason}')

    def parse_data_info(self, raw_data_info: dict[str, Any]) -> dict[str, Any]:
        """Turn one image's raw annotations into mmdet's format.

        Args:
            raw_data_info: ``raw_img_info`` and ``raw_ann_info`` as read from the file.

        Returns:
            The image's record; ``instances`` hold boxes ``(x1, y1, x2, y2)`` within the image.
        """
        self._check_file()
        image = raw_data_info['raw_img_info']
        info: dict[str, Any] = super().parse_data_info(dict(raw_img_info=image, raw_ann_info=[]))
        parsed = (self._parse_annotation(raw, image) for raw in raw_data_info['raw_ann_info'])
        info['instances'] = [instance for instance in parsed if instance is not None]
        return info

    def _check_file(self) -> None:
        """What concerns the file as a whole, once."""
        if self._file_checked:
            return
        self._file_checked = True
        self._check_classes()
        doubles = len(self.coco.dataset['images']) - len(self.coco.imgs)
        if doubles:
            raise self._malformed(f'{doubles} images have the id of another image')

    def _check_classes(self) -> None:
        """Compare names with the file; labels are numbered in the file's order."""
        classes = list(self.metainfo['classes'])
        names = [category['name'] for category in self.coco.dataset['categories']]
        unknown = [name for name in classes if name not in names]
        if unknown:
            hint = did_you_mean(unknown[0], names)
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
        x, y, width, height = self._box_of(raw)
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

    def _box_of(self, raw: dict[str, Any]) -> list[float]:
        box: list[float] = raw['bbox']
        try:
            if len(box) == 4 and all(map(math.isfinite, box)):
                return box
        except TypeError:  # no list, or not of numbers
            pass
        raise self._malformed(
            f'annotation {raw["id"]} (image {raw["image_id"]}) has the bbox {box!r}, not four '
            'finite numbers'
        )

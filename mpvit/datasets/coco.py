"""COCO annotations read the way the official code reads them."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS

from mpvit.datasets.annotations import read_annotations
from mpvit.datasets.table import Annotations, Ints, Mask, collector_off
from mpvit.datasets.toy import CLASSES, PALETTE, ToySpec, write_toy_dataset
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
    them. Of a large file (`mpvit.datasets.shared`) there are no records: each is made when it is
    asked for, from arrays that all processes of a machine share.

    Args:
        *args: As for `CocoDataset`.
        masks: Keep the masks, for a pipeline that loads them.
        max_skipped_images: In training, take another image in the place of one that cannot be
            read, for up to that many different images; 0 for none. Workers count together, each
            process of a distributed run by itself. In evaluation every image has to be read.
        **kwargs: As for `CocoDataset`.
    """

    _skipped: SkippedImages | None = None
    #: Boxes of the images that the filters leave, without crowds; known once the file is read.
    box_count: int | None = None

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
            f'image {path} cannot be read ({reason}): run mpvit check_dataset {where}; {rule}',
            every_rank=True,
        ) from error

    @collector_off()
    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the annotation file; see `CocoDataset.load_data_list`.

        Returns:
            A record an image, by ascending id.

        Raises:
            UserError: The file is no COCO JSON, contradicts itself, or its categories are not the
                dataset's classes in the same order.
        """
        truth = read_annotations(self.ann_file, unlabelled=True, backend_args=self.backend_args)
        if not truth.images:
            raise UserError(f'annotation file {self.ann_file} lists no image')
        self._check_classes(truth)
        _check_images_and_ids(truth)
        names = set(self.metainfo['classes'])
        self.cat_ids = [entry['id'] for entry in truth.categories if entry['name'] in names]
        self.cat2label = {category: label for label, category in enumerate(self.cat_ids)}
        ids = truth.category_ids.tolist()
        labels = np.array([*(self.cat2label.get(id_, -1) for id_ in ids), -1])
        counted = truth.listed & (labels >= 0)[truth.category_row] & ~truth.ignored
        truth.refuse_odd_boxes(counted)
        if not self.test_mode and not (counted & truth.has_area).any():
            raise UserError(
                f'annotation file {self.ann_file} has no box to train on: no annotation of these '
                'classes has an area within its image'
            )
        records = Records(self, truth, labels, np.argsort(truth.image_ids))
        if truth.shared and self.proposal_file is None:
            return records  # type: ignore[return-value]
        self.cat_img_map = defaultdict(list)  # for mmdet's `filter_data`
        for entry in truth.annotations:
            self.cat_img_map[entry['category_id']].append(entry['image_id'])
        return list(records)

    def filter_data(self) -> list[dict[str, Any]]:
        """Leave out images, and count the boxes of the others; see `CocoDataset.filter_data`."""
        if isinstance(self.data_list, Records):
            limits = None if self.test_mode else self.filter_cfg
            images, used = self.data_list.truth.used(self.metainfo['classes'], limits)
            kept: Any = self.data_list.where(images)
            self.box_count = int(used.sum())
        else:
            kept = super().filter_data()
            boxes = (one for info in kept for one in info['instances'])
            self.box_count = sum(not box['ignore_flag'] for box in boxes)
        if not kept:  # mmengine's packing of the records takes at least one
            raise UserError(f'annotation file {self.ann_file}: filter_cfg leaves no image')
        found: list[dict[str, Any]] = kept
        return found

    @property
    def serialize_data(self) -> bool:
        """Whether mmengine packs the records into one array, as all but `Records` need it."""
        return self._serialize and not isinstance(getattr(self, 'data_list', None), Records)

    @serialize_data.setter
    def serialize_data(self, wanted: bool) -> None:
        self._serialize = wanted

    def _get_unserialized_subset(self, indices: Any) -> Any:
        if isinstance(self.data_list, Records) and not isinstance(indices, int):
            return self.data_list[list(indices)]
        return super()._get_unserialized_subset(indices)

    def record(self, truth: Annotations, labels: Ints, image: int) -> dict[str, Any]:
        """What the pipeline gets of an image: the annotations that count, and its raw entries.

        Args:
            truth: Annotation file.
            labels: Of each category, ``(C + 1,)``; -1 for those left out, and at the end.
            image: Row of the image.
        """
        rows = truth.rows_in(image)
        label = labels[truth.category_row[rows]]
        counted = (label >= 0) & truth.has_area[rows] & ~truth.ignored[rows]
        kept = rows[counted]
        columns = (truth.clipped(kept), label[counted], truth.crowd[kept])
        instances = [
            dict(bbox=box, bbox_label=label, ignore_flag=int(crowd))
            for box, label, crowd in zip(*(c.tolist() for c in columns), strict=True)
        ]
        if self._masks:
            for instance, annotated in zip(instances, truth.entries(kept), strict=True):
                if annotated.get('segmentation'):
                    instance['mask'] = annotated['segmentation']
        entry = truth.images[image]
        described = dict(entry, img_id=entry['id'])
        return self.parse_data_info(
            dict(raw_img_info=described, raw_ann_info=truth.entries(rows), instances=instances)
        )

    def parse_data_info(self, raw_data_info: dict[str, Any]) -> dict[str, Any]:
        """The record of an image, with the ``instances`` that count.

        Their boxes ``(x1, y1, x2, y2)`` lie within the image. ``raw_ann_info`` is as in the file.
        """
        image = raw_data_info['raw_img_info']
        info: dict[str, Any] = super().parse_data_info(dict(raw_img_info=image, raw_ann_info=[]))
        info['instances'] = raw_data_info['instances']
        return info

    def _check_classes(self, truth: Annotations) -> None:
        """Compare names with the file; labels are numbered in the file's order."""
        classes = list(self.metainfo['classes'])
        names, wanted = truth.names, set(classes)
        known = set(names)
        unknown = [name for name in classes if name not in known]
        if unknown:
            hint = did_you_mean(unknown[0], names)
            raise UserError(
                f'annotation file {self.ann_file} has no category {unknown[0]!r}{hint} '
                f'({len(unknown)} of {len(classes)} classes in metainfo are unknown)'
            )
        in_file = [name for name in names if name in wanted]
        if in_file != classes:
            raise UserError(
                f'annotation file {self.ann_file} lists its categories in another order than '
                f'metainfo; set metainfo.classes to {tuple(in_file)}'
            )


def _check_images_and_ids(truth: Annotations) -> None:
    doubles = len(truth.images) - len(np.unique(truth.image_ids))
    if doubles:
        raise truth.malformed_error(f'{doubles} images have the id of another image')
    for row in np.flatnonzero(np.isnan(truth.sizes[:, 0])).tolist():
        size = [truth.images[row].get(side) for side in ('width', 'height')]
        raise truth.malformed_error(f'images[{row}] has the width and height {size}')
    if truth.ids_repeat:
        raise truth.malformed_error('annotation ids are not unique')


class Records(Sequence[dict[str, Any]]):
    """The records of a dataset, each made when it is asked for; never changed.

    Args:
        dataset: Makes them.
        truth: Annotation file.
        labels: As for `OfficialCocoDataset.record`.
        rows: Of the images, in their order.
    """

    def __init__(
        self, dataset: OfficialCocoDataset, truth: Annotations, labels: Ints, rows: Ints
    ) -> None:
        self.dataset, self.truth, self.labels, self.rows = dataset, truth, labels, rows

    def __len__(self) -> int:
        """Number of images."""
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        """The record of an image, or some of the records."""
        if isinstance(index, slice | list):
            return Records(self.dataset, self.truth, self.labels, self.rows[index])
        return self.dataset.record(self.truth, self.labels, int(self.rows[index]))

    def __deepcopy__(self, memo: dict[int, Any]) -> 'Records':
        """The same: mmengine copies the records of a part of a dataset."""
        return self

    def where(self, images: Mask) -> 'Records':
        """Those of some of the images ``(M,)``."""
        return Records(self.dataset, self.truth, self.labels, self.rows[images[self.rows]])


@DATASETS.register_module()
class ToyDataset(OfficialCocoDataset):
    """A `CocoDataset` that draws its files first where they are missing.

    Args:
        data_root: Folder of the dataset; written by `write_toy_dataset` when not there.
        spec: Fields of `ToySpec`, what to draw; None for its defaults.
        draw: Whether missing files are drawn.
        **kwargs: As for `CocoDataset`.
    """

    METAINFO: ClassVar[dict[str, Any]] = dict(classes=CLASSES, palette=PALETTE)

    def __init__(
        self,
        *args: Any,
        data_root: str,
        spec: dict[str, Any] | None = None,
        draw: bool = True,
        **kwargs: Any,
    ) -> None:
        if draw:
            write_toy_dataset(data_root, ToySpec(**(spec or {})))
        super().__init__(*args, data_root=data_root, **kwargs)

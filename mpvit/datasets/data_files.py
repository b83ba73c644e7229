"""What a user names of a dataset. Standard library only, so that commands answer at once."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpvit.datasets.layout import Layout


@dataclass(frozen=True)
class DataFiles:
    """What a user names of a dataset in COCO format, to be taken instead of the config's own data.

    Attributes:
        data: Folder of the dataset.
        train_ann: Annotation file to train on, instead of the one in ``data``.
        val_ann: Annotation file to validate or test on, instead of the one in ``data``.
        train_images: Folder of the training images, where it is not found by itself.
        val_images: Folder of the images of ``val_ann``, where it is not found by itself.
    """

    data: str | None = None
    train_ann: str | None = None
    val_ann: str | None = None
    train_images: str | None = None
    val_images: str | None = None

    def for_training(self) -> 'Layout | None':
        """What `find_training_data` finds; None where nothing is named."""
        from mpvit.datasets.layout import find_training_data

        return find_training_data(**vars(self)) if any(vars(self).values()) else None

    def for_testing(self) -> 'Layout | None':
        """What `find_test_data` finds; None where nothing is named."""
        from mpvit.datasets.layout import find_test_data

        named = dict(data=self.data, val_ann=self.val_ann, val_images=self.val_images)
        return find_test_data(**named) if any(named.values()) else None

"""How well a detector did on each image."""

from dataclasses import dataclass

import numpy as np

from mpvit.evaluation.outcomes import FOUND, IGNORED, Outcomes
from mpvit.evaluation.result_files import Floats, Ints, Results


@dataclass(frozen=True)
class ImageScores:
    """Counts of each image, ``(I,)`` each.

    Attributes:
        found: Objects found.
        missed: Objects not found.
        false: Detections that found none.
        f1: Harmonic mean of precision and recall, in [0, 1]; NaN where there is neither an object
            nor a detection.
    """

    found: Ints
    missed: Ints
    false: Ints
    f1: Floats

    def worst(self, count: int) -> list[int]:
        """Images by rising F1, of equal ones those with the most errors first; flawless ones not.

        Args:
            count: How many at most.
        """
        errors = self.missed + self.false
        order = np.lexsort((-errors, self.f1))
        return [int(image) for image in order if errors[image]][:count]

    def best(self, count: int) -> list[int]:
        """Images by falling F1, of equal ones those with the most objects first.

        Args:
            count: How many at most; images in which nothing was found are left out.
        """
        order = np.lexsort((-self.found, -self.f1))
        return [int(image) for image in order if self.found[image]][:count]


def score_images(results: Results, outcomes: Outcomes) -> ImageScores:
    """Count what was found, missed and falsely found in each image.

    Args:
        results: Ground truth and detections above a threshold.
        outcomes: Their `judge`.
    """
    total = len(results.files)
    image = results.detected.image
    real = ~results.objects.crowd
    found = np.bincount(image[outcomes.outcome == FOUND], minlength=total)
    wrong = (outcomes.outcome != FOUND) & (outcomes.outcome != IGNORED)
    false = np.bincount(image[wrong], minlength=total)
    missed = np.bincount(results.objects.image[real], minlength=total) - found
    with np.errstate(invalid='ignore'):
        f1 = 2 * found / (2 * found + missed + false)
    return ImageScores(found, missed, false, f1)

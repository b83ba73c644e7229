"""What a detector gets right and wrong, and how its training went, as numbers; nothing is drawn.

Imports neither torch nor mmdet, so that the tools that draw start at once.
"""

from mpvit.analysis.errors import ERROR_TYPES, ErrorTypes, error_types
from mpvit.analysis.images import ImageScores, score_images
from mpvit.analysis.matching import OUTCOMES, Outcomes, judge
from mpvit.analysis.results import Detected, Objects, Results, read_results
from mpvit.analysis.study import Analysis, analyse
from mpvit.datasets.check.table import SIZE_LIMITS

__all__ = [
    'ERROR_TYPES',
    'OUTCOMES',
    'SIZE_LIMITS',
    'Analysis',
    'Detected',
    'ErrorTypes',
    'ImageScores',
    'Objects',
    'Outcomes',
    'Results',
    'analyse',
    'error_types',
    'judge',
    'read_results',
    'score_images',
]

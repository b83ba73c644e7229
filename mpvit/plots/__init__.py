"""Pictures of a run: curves, charts of what is found and what is not, and images with boxes."""

from mpvit.colours import class_colour
from mpvit.plots.charts import (
    ap_by_size,
    ap_per_class,
    confusion_matrix,
    error_chart,
    precision_recall,
    threshold_chart,
)
from mpvit.plots.curves import draw_curves, plot_curves
from mpvit.plots.errors import draw_errors
from mpvit.plots.photos import Photos
from mpvit.plots.sheets import contact_sheet, image_sheet, mistake_sheet
from mpvit.plots.style import save, svg

__all__ = [
    'Photos',
    'ap_by_size',
    'ap_per_class',
    'class_colour',
    'confusion_matrix',
    'contact_sheet',
    'draw_curves',
    'draw_errors',
    'error_chart',
    'image_sheet',
    'mistake_sheet',
    'plot_curves',
    'precision_recall',
    'save',
    'svg',
    'threshold_chart',
]

"""What the detector is made of; importing it registers the modules in mmdet's `MODELS`."""

from mpvit.models.coat import CoaT
from mpvit.models.detector import AnyWidthDeformableDETR
from mpvit.models.head import OfficialDeformableDETRHead
from mpvit.models.mpvit import MPViT

__all__ = ['AnyWidthDeformableDETR', 'CoaT', 'MPViT', 'OfficialDeformableDETRHead']

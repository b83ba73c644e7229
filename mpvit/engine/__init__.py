"""Extensions of mmengine; importing it registers them."""

from mpvit.engine import loading
from mpvit.engine.checkpoint_hook import CheckpointFitHook
from mpvit.engine.coco_metric import CocoBoxMetric
from mpvit.engine.ema import SharedWeightsEMA
from mpvit.engine.hooks import ProgressBarHook
from mpvit.engine.optimizer import AutocastOptimWrapper, MergedOptimWrapperConstructor
from mpvit.engine.portable_runner import PortableRunner
from mpvit.engine.prepare import PrepareInferenceHook
from mpvit.engine.zero_ap import ZeroAPHook

__all__ = [
    'AutocastOptimWrapper',
    'CheckpointFitHook',
    'CocoBoxMetric',
    'MergedOptimWrapperConstructor',
    'PortableRunner',
    'PrepareInferenceHook',
    'ProgressBarHook',
    'SharedWeightsEMA',
    'ZeroAPHook',
    'loading',
]

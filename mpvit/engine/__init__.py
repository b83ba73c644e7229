"""Extensions of mmengine; importing it registers them."""

from mpvit.engine import loading, safe_files
from mpvit.engine.checkpoint_hook import CheckpointFitHook
from mpvit.engine.coco_metric import CocoBoxMetric
from mpvit.engine.durable_checkpoint import DurableCheckpointHook
from mpvit.engine.ema import SharedWeightsEMA
from mpvit.engine.finite import FiniteAmpOptimWrapper, FiniteOptimWrapper, FiniteStepHook
from mpvit.engine.hooks import ProgressBarHook
from mpvit.engine.optimizer import AutocastOptimWrapper, MergedOptimWrapperConstructor
from mpvit.engine.portable_runner import PortableRunner
from mpvit.engine.preemption import TrainingPaused
from mpvit.engine.prepare import PrepareInferenceHook
from mpvit.engine.trackers import MLflowTracker, TensorboardTracker, WandbTracker
from mpvit.engine.train_loop import ResumableTrainLoop
from mpvit.engine.zero_ap import ZeroAPHook

__all__ = [
    'AutocastOptimWrapper',
    'CheckpointFitHook',
    'CocoBoxMetric',
    'DurableCheckpointHook',
    'FiniteAmpOptimWrapper',
    'FiniteOptimWrapper',
    'FiniteStepHook',
    'MLflowTracker',
    'MergedOptimWrapperConstructor',
    'PortableRunner',
    'PrepareInferenceHook',
    'ProgressBarHook',
    'ResumableTrainLoop',
    'SharedWeightsEMA',
    'TensorboardTracker',
    'TrainingPaused',
    'WandbTracker',
    'ZeroAPHook',
    'loading',
    'safe_files',
]

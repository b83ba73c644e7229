"""Numbers of a detector: parameters, operations, memory, latency (docs/model_info.md)."""

from mpvit.model_info.info import AtSize, Figures, ModelInfo, model_info
from mpvit.model_info.operations import Count, Operations, count_operations
from mpvit.model_info.tables import machine, part_table, summary_table

__all__ = [
    'AtSize',
    'Count',
    'Figures',
    'ModelInfo',
    'Operations',
    'count_operations',
    'machine',
    'model_info',
    'part_table',
    'summary_table',
]

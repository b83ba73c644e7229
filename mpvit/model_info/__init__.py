"""Numbers of a detector: parameters, operations, memory, latency (docs/model_info.md)."""

import mpvit.register  # noqa: F401
from mpvit.model_info.info import model_info
from mpvit.model_info.operations import count_operations
from mpvit.model_info.tables import machine, part_table, summary_table

__all__ = [
    'count_operations',
    'machine',
    'model_info',
    'part_table',
    'summary_table',
]

"""Looks for problems in a dataset before a long run does; docs/check_dataset.md lists them.

Imports neither torch nor mmdet, so that it starts at once.
"""

from mpvit.datasets.annotations import Split
from mpvit.datasets.check.checker import check_dataset, inspect_dataset
from mpvit.datasets.check.expectations import Scales, settings_of
from mpvit.datasets.check.problems import CHECKS, SEVERITIES, Problem, refuse_fatal
from mpvit.datasets.check.repair import write_repaired
from mpvit.datasets.check.report import counts_in, json_report, text_report

__all__ = [
    'CHECKS',
    'SEVERITIES',
    'Problem',
    'Scales',
    'Split',
    'check_dataset',
    'counts_in',
    'inspect_dataset',
    'json_report',
    'refuse_fatal',
    'settings_of',
    'text_report',
    'write_repaired',
]

"""One HTML file about a run, for people who were not there."""

from mpvit.report.page import write_report

__all__ = ['write_report']

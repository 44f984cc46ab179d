"""What a study comes to: its report and tables, and the words it ends with. ``python -m tune.report RUN``."""

from tune.report.closing import closing_lines
from tune.report.results import refresh_results, trial_table, write_results

__all__ = ["closing_lines", "refresh_results", "trial_table", "write_results"]

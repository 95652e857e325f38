"""Statistics of accuracies measured on several questions a video; docs/statistics.md says what and why."""

from analysis.stats.intervals import Interval, clustered_mean

__all__ = ["Interval", "clustered_mean"]

"""What is said of a handful of times: percentiles, and an interval of the median."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import binom

CONFIDENCE = 0.95


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The narrowest pair of order statistics, equally far from both ends, that holds the median with CONFIDENCE.

    Exact for any continuous distribution: the number of values below the median is Binomial(n, 1/2). None for fewer
    than 6 values, whose whole range does not reach it.

    >>> median_interval(range(1, 21))
    (6.0, 15.0)
    """
    ordered = sorted(map(float, values))
    below = int(binom.ppf((1 - CONFIDENCE) / 2, len(ordered), 0.5))  # P(X < below) < 2.5%
    return (ordered[below - 1], ordered[-below]) if below >= 1 else None


def summary(values: Sequence[float]) -> dict[str, Any]:
    """n, p50, p90, p99 (linear between order statistics), and low, high of `median_interval` or None."""
    p50, p90, p99 = np.percentile(list(values), [50, 90, 99]).tolist()
    low, high = median_interval(values) or (None, None)
    return {"n": len(values), "p50": p50, "low": low, "high": high, "p90": p90, "p99": p99}

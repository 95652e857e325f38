"""Intervals for accuracies measured on several questions a video."""

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95% interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def clustered_mean(
    values: pd.Series, clusters: pd.Series, *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Mean of `values` with a percentile bootstrap interval that resamples whole clusters (videos).

    Questions on one video share its difficulty, so resampling single questions would give too narrow an
    interval. Give paired differences as `values` for the interval of a difference. Raises ValueError on missing
    values (a missing score is not 0) and on no values at all.
    """
    if len(values) == 0:
        raise ValueError("no values to average: got an empty selection, expected at least one scored sample")
    if values.isna().any():
        raise ValueError(f"{int(values.isna().sum())} of {len(values)} values are missing; drop or score them first")
    grouped = values.astype(float).groupby(clusters.to_numpy()).agg(["sum", "count"])
    sums, counts = grouped["sum"].to_numpy(), grouped["count"].to_numpy()
    draws = np.random.default_rng(seed).integers(0, len(sums), (resamples, len(sums)))
    means = sums[draws].sum(1) / counts[draws].sum(1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(values.mean()), float(low), float(high))

"""Intervals for means measured on several questions a video: a studentised bootstrap of whole videos."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student

from analysis.stats.clusters import ClusterSums, Floats


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95% interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def clustered_mean(
    values: pd.Series,
    clusters: pd.Series,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Interval:
    """Mean of `values` with an interval that resamples whole clusters (videos).

    Questions on one video share its difficulty, so resampling single questions would give too narrow an
    interval. Give paired differences as `values` for the interval of a difference, and as `bounds` what the mean
    can be (an accuracy: 0 and 1). One cluster alone tells no interval: its ends are NaN. Raises ValueError on missing
    values (a missing score is not 0) and on no values at all.
    """
    if len(values) == 0:
        raise ValueError("no values to average: got an empty selection, expected at least one scored sample")
    if values.isna().any():
        raise ValueError(f"{int(values.isna().sum())} of {len(values)} values are missing; drop or score them first")
    data = ClusterSums.of(values.to_numpy(float)[:, None], pd.factorize(clusters.to_numpy())[0])
    half = critical_values(data, resamples=resamples, level=level, seed=seed) * data.standard_error
    low, high = np.clip([data.estimate - half, data.estimate + half], *bounds)
    return Interval(float(data.estimate[0]), float(low[0]), float(high[0]))


def critical_values(data: ClusterSums, *, resamples: int = 2000, level: float = 0.95, seed: int = 0) -> Floats:
    """(columns,): how many standard errors reach from a column's estimate to the ends of its interval.

    The `level` quantile of |t| over resamples of whole videos (symmetric studentised bootstrap), at least Student's
    with videos - 1 degrees of freedom: with a handful of discordant questions many resamples tell no error at all.
    Columns share the resamples.
    """
    moved = np.abs(_t_values(data, _multiplicities(len(data.sums), resamples, seed)))
    least = student.ppf((1 + level) / 2, np.maximum(data.videos - 1, 1))
    return np.maximum(np.quantile(moved, level, axis=0), least)


@lru_cache(maxsize=1)  # table after table asks for the same videos
def _multiplicities(videos: int, resamples: int, seed: int) -> NDArray[np.float32]:
    """(resamples, videos): how often each resample drew each video."""
    rng = np.random.default_rng(seed)
    drawn = (np.bincount(rng.integers(0, videos, videos), minlength=videos) for _ in range(resamples))
    return np.fromiter(drawn, np.dtype((np.float32, videos)), resamples)


def _t_values(data: ClusterSums, weights: NDArray[np.float32]) -> Floats:
    """(resamples, columns): the estimate's move in its own standard errors; 0 where a resample has no error."""
    residuals, counts, categories = data.residuals, data.counts, data.sums.shape[1]

    def drawn(*parts: Floats) -> list[Floats]:
        """Sums over the drawn videos, of several (videos, columns) in one product."""
        product = weights @ np.concatenate(parts, axis=1).astype(np.float32)
        return np.split(product.astype(float), len(parts), axis=1)

    totals = drawn(*(counts[:, k] for k in range(categories)))
    with np.errstate(divide="ignore", invalid="ignore"):
        moves = [s / n for s, n in zip(drawn(*(residuals[:, k] for k in range(categories))), totals, strict=True)]
        square = np.zeros_like(totals[0])
        for k, m in combinations_with_replacement(range(categories), 2):
            if not (counts[:, k] * counts[:, m]).any():
                continue  # no video has questions of both
            (r, c), (s, d) = (residuals[:, k], counts[:, k]), (residuals[:, m], counts[:, m])
            rs, cs, rd, cd = drawn(r * s, c * s, r * d, c * d)
            product = rs - moves[k] * cs - moves[m] * rd + moves[k] * moves[m] * cd
            square += (1 if k == m else 2) * product / (totals[k] * totals[m])
        # Rounding leaves a trace of an error where all drawn videos are alike.
        told = square > 1e-6 * categories**2 * data.standard_error**2
        error = np.sqrt(square * data.videos / (data.videos - 1))
        return np.where(told, np.sum(moves, axis=0) / error, 0.0)

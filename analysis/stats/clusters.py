"""Means of questions that share videos: estimate, influence of each video, cluster-robust standard error."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True)
class ClusterSums:
    """Sums and counts of several columns of values: all that a mean, its error and its bootstrap need.

    A column's estimate is the mean over categories of its categories' means: the micro mean with one category, the
    macro mean with several. It is missing where a category has no value.
    """

    sums: Floats  # (videos, categories, columns)
    counts: Floats  # the same; a missing value is not counted

    @classmethod
    def of(cls, values: Floats, videos: Codes, categories: Codes | None = None) -> Self:
        """From `values` (questions, columns; NaN = missing) and each question's video and category, as 0, 1, ..."""
        groups = np.zeros_like(videos) if categories is None else categories
        shape = (int(videos.max()) + 1, int(groups.max()) + 1, values.shape[1])
        rows = videos * shape[1] + groups
        member = sparse.csr_array(
            (np.ones(len(rows)), (rows, np.arange(len(rows)))), shape=(shape[0] * shape[1], len(rows))
        )
        known = ~np.isnan(values)
        return cls(
            (member @ np.where(known, values, 0.0)).reshape(shape), (member @ known.astype(float)).reshape(shape)
        )

    @property
    def means(self) -> Floats:
        """(categories, columns)."""
        with np.errstate(invalid="ignore"):
            return self.sums.sum(0) / self.counts.sum(0)

    @property
    def estimate(self) -> Floats:
        """(columns,)."""
        return self.means.mean(0)

    @property
    def videos(self) -> NDArray[np.int64]:
        """(columns,): how many videos have a value."""
        return (self.counts.sum(1) > 0).sum(0)

    @property
    def residuals(self) -> Floats:
        """(videos, categories, columns): sums without what the category's mean explains."""
        return self.sums - self.means * self.counts

    def weigh(self, parts: Floats) -> Floats:
        """(videos, columns): `parts` (videos, categories, columns) in the estimate's unit, summed over categories."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return (parts / self.counts.sum(0)).mean(1)

    @property
    def influence(self) -> Floats:
        """(videos, columns): how much each video moves the estimate, to first order; sums to 0."""
        return self.weigh(self.residuals)

    @property
    def contributions(self) -> Floats:
        """(videos, columns): each video's part of the estimate; sums to it."""
        return self.weigh(self.sums)

    @property
    def standard_error(self) -> Floats:
        """(columns,): cluster-robust (CR1), the sandwich of a regression on a constant; missing for one video."""
        videos = self.videos
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.sqrt(videos / (videos - 1) * (self.influence**2).sum(0))

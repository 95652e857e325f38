"""Seeds as a random effect: what a mean over few seeds owes to their draw, beside what it owes to the questions'."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.special import stdtr, stdtrit

from analysis.stats.clusters import ClusterSums, Codes, Floats


@dataclass(frozen=True)
class SeedPart:
    """What means over a method's seeds owe to the draw of the seeds; one value a column.

    All is 0 where the seeds' means differ no more than the interaction of seeds and videos explains.
    """

    variance: Floats  # of the mean over seeds: the variance between the seeds' means, over the number of seeds
    interaction: Floats  # of seeds and videos in it; the clustered error of the averaged scores has it, too
    freedom: Floats  # seeds - 1; 1 of one seed, which tells nothing of this

    @classmethod
    def of(cls, data: ClusterSums) -> Self:
        """Of one mean over seeds, from a column a seed."""
        seeds = data.sums.shape[2]
        if seeds == 1:
            return cls(np.zeros(1), np.zeros(1), np.ones(1))
        videos = data.videos.min()
        interaction = data.influence.var(1, ddof=1).sum() * videos / max(videos - 1, 1)
        between = data.estimate.var(ddof=1)
        parts = np.array([between, interaction]) / seeds if between > interaction else np.zeros(2)
        return cls(parts[:1], parts[1:], np.array([seeds - 1.0]))

    @classmethod
    def joined(cls, parts: list["SeedPart"]) -> Self:
        """Their columns in a row."""
        columns = zip(*((part.variance, part.interaction, part.freedom) for part in parts), strict=True)
        return cls(*map(np.concatenate, columns))

    def columns(self, of: Codes) -> "SeedPart":
        """The same of some columns."""
        return SeedPart(self.variance[of], self.interaction[of], self.freedom[of])


@dataclass(frozen=True)
class Spread:
    """Standard errors of estimates and their degrees of freedom; one value a column."""

    error: Floats
    freedom: Floats

    @classmethod
    def of(cls, data: ClusterSums, *seeds: SeedPart) -> Self:
        """From the estimates' questions (cluster-robust, videos - 1 degrees of freedom) and their seeds.

        Law of total variance for seeds x videos, both random. The parts are independent mean squares; the degrees of
        freedom of their sum are the parts', averaged harmonically with the variances as weights. Satterthwaite squares
        the weights, as if they were known; they come from two degrees of freedom, too, where there are three seeds.
        docs/statistics.md says how often such intervals hold the truth.
        """
        questions, own = data.standard_error**2, np.maximum(data.videos - 1.0, 1.0)
        shared = sum((part.interaction for part in seeds), np.zeros_like(questions))
        variances = np.vstack([np.maximum(questions - shared, 0.0), *(part.variance for part in seeds)])
        freedoms = np.vstack([own, *(part.freedom for part in seeds)])
        total = variances.sum(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            freedom = np.where(total > 0, total / (variances / freedoms).sum(0), own)
        return cls(np.sqrt(total), freedom)

    def quantiles(self, probability: float) -> Floats:
        """(columns,): Student's t."""
        return stdtrit(self.freedom, probability)

    def p_values(self, estimates: Floats) -> Floats:
        """(columns,): two-sided, against 0; missing where there is no error to divide by."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return 2 * stdtr(self.freedom, -np.abs(estimates) / self.error)

"""Seeds as a random effect: what a mean over few seeds owes to their draw, beside what it owes to the questions'."""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from analysis.stats.clusters import ClusterSums, Codes, Floats


@dataclass(frozen=True)
class Spread:
    """Variances of estimates, part by part (questions, seeds), each with its degrees of freedom."""

    value: Floats  # (parts, columns)
    freedom: Floats  # the same

    def __add__(self, other: "Spread") -> "Spread":
        """Both one's parts."""
        return Spread(np.vstack([self.value, other.value]), np.vstack([self.freedom, other.freedom]))

    def columns(self, of: Codes) -> "Spread":
        """The same parts of some columns."""
        return Spread(self.value[:, of], self.freedom[:, of])

    @property
    def error(self) -> Floats:
        """(columns,): standard errors."""
        return np.sqrt(self.value.sum(0))

    def quantiles(self, probability: "float | Floats") -> Floats:
        """(parts, columns): Student's t."""
        return stdtrit(self.freedom, probability)

    def reach(self, quantiles: Floats) -> Floats:
        """(columns,): how far an interval reaches whose parts alone reach `quantiles` of their errors.

        The root of their squares (MOVER, Zou and Donner 2008): with three seeds the part that has two degrees of
        freedom keeps its own wide quantile, which one pooled number of degrees of freedom would lose.
        """
        return np.sqrt((quantiles**2 * self.value).sum(0))

    def p_values(self, estimates: Floats) -> Floats:
        """(columns,): two-sided, against 0: the level at which the interval ends at 0; at least 1e-12."""
        low, high = np.full(len(estimates), -12.0), np.zeros(len(estimates))  # log10 of p
        for _ in range(50):
            middle = (low + high) / 2
            inside = self.reach(self.quantiles(10**middle / 2)) >= np.abs(estimates)
            low, high = np.where(inside, middle, low), np.where(inside, high, middle)
        return np.where(np.isnan(estimates), np.nan, 10**high)


def question_spread(data: ClusterSums) -> Spread:
    """What estimates owe to the draw of videos and questions: cluster-robust, videos - 1 degrees of freedom."""
    return Spread(data.standard_error[None] ** 2, np.maximum(data.videos - 1.0, 1.0)[None])


def seed_spread(data: ClusterSums) -> Spread:
    """What the mean over a method's seeds owes to the draw of the seeds; one column a seed, one column back.

    Law of total variance for seeds x videos, both random: the variance between the seeds' means holds the seeds' own
    effect and, divided by the videos, the interaction. The latter is in `question_spread` of the mean over seeds
    already, so it is taken off (never below 0). One seed tells nothing of this: 0.
    """
    seeds = data.sums.shape[2]
    if seeds == 1:
        return Spread(np.zeros((1, 1)), np.ones((1, 1)))
    videos = data.videos.min()
    interaction = data.influence.var(1, ddof=1).sum() * videos / max(videos - 1, 1)
    effect = max(0.0, float(data.estimate.var(ddof=1) - interaction))
    return Spread(np.array([[effect / seeds]]), np.array([[seeds - 1.0]]))

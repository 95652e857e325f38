"""Accuracies of a task's settings and their differences, each with its interval, errors and p."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.stats.clusters import ClusterSums, Codes, Floats
from analysis.stats.intervals import critical_values
from analysis.stats.questions import Questions
from analysis.stats.seeds import SeedPart, Spread
from analysis.stats.significance import sign_flip

Flags = NDArray[np.bool_]
Pairs = list[tuple[int, int]]
"""(setting, the setting that is taken from it), as positions in `Settings`."""


@dataclass(frozen=True)
class Means:
    """Estimates with the ends of their 95% intervals and their errors; one value a column."""

    value: Floats
    low: Floats
    high: Floats
    spread: Spread

    @classmethod
    def of(cls, data: ClusterSums, *seeds: SeedPart, seeded: Flags, bounds: tuple[float, float]) -> "Means":
        """From questions and the parts that the seeds have; `bounds` is what the estimates can be.

        An estimate of one seed reaches as far as the bootstrap of the questions says; a mean over seeds (`seeded`) is
        smooth enough for Student's quantile.
        """
        spread, value = Spread.of(data, *seeds), data.estimate
        reach = np.where(seeded, spread.quantiles(0.975), critical_values(data)) * spread.error
        return cls(value, np.clip(value - reach, *bounds), np.clip(value + reach, *bounds), spread)


class Settings:
    """A task's settings, each with the runs that are its seeds: their scores, averaged question by question."""

    def __init__(self, questions: Questions, runs: list[list[str]]) -> None:
        self.questions = questions
        seeds = [questions.columns(names) for names in runs]
        sums = [questions.clusters(columns) for columns in seeds]
        self.seeded = np.array([len(names) > 1 for names in runs], dtype=bool)
        self.scores = np.column_stack([_mean(columns) for columns in seeds])
        self.seed_means = [of.estimate for of in sums]
        self.seeds = SeedPart.joined([SeedPart.of(of) for of in sums])

    def accuracies(self) -> Means:
        """Of every setting."""
        return Means.of(self.questions.clusters(self.scores), self.seeds, seeded=self.seeded, bounds=(0, 1))

    def differences(self, pairs: Pairs) -> Means:
        """Of every pair, on the questions that both answered."""
        data, seeds = self.clusters_of(pairs), self._seeds_of(pairs)
        return Means.of(data, *seeds, seeded=self._seeded(pairs), bounds=(-1, 1))

    def p_values(self, pairs: Pairs) -> Floats:
        """Of no difference, by Student's t of the clustered error, with the seeds' part; see docs/statistics.md.

        Where all videos agree there is no error to divide by: by sign flips.
        """
        data = self.clusters_of(pairs)
        spread = Spread.of(data, *self._seeds_of(pairs))
        p, alike = spread.p_values(data.estimate), spread.error < 1e-9
        p[alike] = sign_flip(data.contributions[:, alike])
        return p

    def flipped(self, pairs: Pairs) -> Floats:
        """Of no difference, by sign flips; missing over seeds, which they would take as given."""
        return np.where(self._seeded(pairs), np.nan, sign_flip(self.clusters_of(pairs).contributions))

    def changed(self, pairs: Pairs) -> tuple[Floats, Floats]:
        """How many questions each pair's first has right and its second wrong, and the reverse.

        Missing where a score is neither right nor wrong: parts of a point, or a mean over seeds.
        """
        difference, (first, second) = self._difference(pairs), _positions(pairs)
        whole = np.all(np.isin(self.scores, (0, 1)) | np.isnan(self.scores), axis=0)
        told = whole[first] & whole[second]
        return np.where(told, (difference > 0).sum(0), np.nan), np.where(told, (difference < 0).sum(0), np.nan)

    def paired(self, pairs: Pairs) -> Codes:
        """How many questions both of a pair answered."""
        return (~np.isnan(self._difference(pairs))).sum(0)

    def clusters_of(self, pairs: Pairs) -> ClusterSums:
        """The pairs' differences by video."""
        return self.questions.clusters(self._difference(pairs))

    def _difference(self, pairs: Pairs) -> Floats:
        first, second = _positions(pairs)
        return self.scores[:, first] - self.scores[:, second]

    def _seeds_of(self, pairs: Pairs) -> tuple[SeedPart, SeedPart]:
        first, second = _positions(pairs)
        return self.seeds.columns(first), self.seeds.columns(second)

    def _seeded(self, pairs: Pairs) -> Flags:
        first, second = _positions(pairs)
        return self.seeded[first] | self.seeded[second]


def _positions(pairs: Pairs) -> tuple[Codes, Codes]:
    first, second = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
    return first, second


def _mean(columns: Floats) -> Floats:
    known = ~np.isnan(columns)
    with np.errstate(invalid="ignore"):
        return np.where(known, columns, 0.0).sum(1) / known.sum(1)

"""Tests of paired differences, their correction for many comparisons, and what they could have found."""

import numpy as np
from scipy.stats import binom

from analysis.stats.clusters import Floats
from analysis.stats.seeds import Spread

LEVEL = 0.05
"""Two-sided, of every mark."""

POWER = 0.8
"""At which a minimum detectable effect is told."""

FLIPS = 9999
BLOCK = 2**22  # numbers of a block of flips: bounds memory, does not change results


def mcnemar_midp(gained: Floats, lost: Floats) -> Floats:
    """McNemar's exact test, mid-p, of `gained` against `lost` questions; 1 where no question changed.

    It takes every question as independent of all others: questions on one video are not, and it then finds too much.
    It is there to compare with papers that report it.

    >>> mcnemar_midp(np.array([1.0]), np.array([7.0])).round(4)
    array([0.0391])
    """
    changed, fewer = gained + lost, np.minimum(gained, lost)
    return 2 * binom.cdf(fewer, changed, 0.5) - binom.pmf(fewer, changed, 0.5)


def sign_flip(contributions: Floats, *, flips: int = FLIPS, seed: int = 0) -> Floats:
    """(columns,): two-sided p of a difference of 0, by swapping the two methods video by video.

    `contributions` (videos, columns): each video's part of the difference. All questions of a video are swapped at
    once, so what they share does not count as evidence; with one question a video this is McNemar's test. Exact for
    any number of videos, but n videos cannot give less than 2 / 2^n, nor flips less than 1 / (flips + 1). Columns
    share the flips.
    """
    rng, videos = np.random.default_rng(seed), len(contributions)
    observed = np.abs(contributions.sum(0))
    reached, block = np.zeros(contributions.shape[1]), max(1, BLOCK // videos)
    for start in range(0, flips, block):
        signs = rng.integers(0, 2, (min(block, flips - start), videos), dtype=np.int8) * 2.0 - 1
        # Sums that are equal but for the order of their terms must count as reached.
        reached += (np.abs(signs @ contributions) >= observed * (1 - 1e-9) - 1e-12).sum(0)
    return np.where(np.isnan(observed), np.nan, (reached + 1) / (flips + 1))


def holm(p: Floats) -> Floats:
    """Holm's adjustment over all comparisons that have a p; missing stays missing.

    >>> holm(np.array([0.01, np.nan, 0.04, 0.03]))
    array([0.03,  nan, 0.06, 0.06])
    """
    # statsmodels' multipletests, which the tests compare with, collects all garbage at every call: 0.3 s each.
    order = np.argsort(p)[: int((~np.isnan(p)).sum())]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted


def detectable(spread: Spread) -> Floats:
    """The smallest true difference found in `POWER` of such experiments at `LEVEL`, in the values' unit.

    Of one comparison, without Holm's correction. Missing where no question changed: that tells no error.
    """
    effect = (spread.quantiles(1 - LEVEL / 2) + spread.quantiles(POWER)) * spread.error
    return np.where(effect > 0, effect, np.nan)

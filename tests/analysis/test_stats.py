"""Pieces of the statistics against independent libraries, worked numbers and a simulated truth."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy.stats import binomtest
from simulated import World
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from analysis.stats import clustered_mean
from analysis.stats.clusters import ClusterSums
from analysis.stats.intervals import _t_values, critical_values
from analysis.stats.seeds import SeedPart, Spread
from analysis.stats.significance import detectable, holm, mcnemar_midp, sign_flip

WORLDS = [World(30, (7, 7)), World(60, (1, 7)), World(250, (1, 7), level=1.5, alike=0.8)]
SEEDED = [
    World(30, (1, 7), seeds=3, seed=0.1),
    World(100, (1, 7), seeds=3, seed=0.3),
    World(100, (1, 7), seeds=3, seed=0.3, apart=True),
    World(250, (1, 3), seeds=5),
]


def one_column(values: list[float], videos: list[int], categories: list[int] | None = None) -> ClusterSums:
    kinds = None if categories is None else np.array(categories)
    return ClusterSums.of(np.array(values, dtype=float)[:, None], np.array(videos), kinds)


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_the_interval_of_a_difference_holds_the_truth(world: World) -> None:
    settings, pairs = world.draw(1000, seed=3)
    means = settings.differences(pairs)
    held = ((means.low <= world.difference) & (world.difference <= means.high)).mean()
    assert 0.93 <= held <= 0.97
    middle = means.value.mean()
    assert abs(middle - world.difference) < 4 * means.value.std() / math.sqrt(1000), "no bias"


@pytest.mark.parametrize("world", SEEDED, ids=str)
def test_with_seeds_the_interval_holds_the_truth_of_all_seeds(world: World) -> None:
    settings, pairs = world.draw(1000, seed=4)
    means = settings.differences(pairs)
    held = ((means.low <= world.difference) & (world.difference <= means.high)).mean()
    assert 0.93 <= held <= 0.97
    if world.seed == 0.3:
        alone = 1.96 * settings.clusters_of(pairs).standard_error
        assert (np.abs(means.value - world.difference) <= alone).mean() < 0.85, "the questions' part is not enough"


def test_tests_find_nothing_where_nothing_is() -> None:
    settings, pairs = World(60, (7, 7), own=0.8).equal().draw(1000, seed=5)
    found = [(p < 0.05).mean() for p in (settings.p_values(pairs), settings.flipped(pairs))]
    assert 0.03 <= found[0] <= 0.07 and 0.025 <= found[1] <= 0.07
    assert (mcnemar_midp(*settings.changed(pairs)) < 0.05).mean() > 0.075, "a video's questions are not independent"
    settings, pairs = World(60, (1, 7), seeds=3, seed=0.2).equal().draw(1000, seed=6)
    assert 0.02 <= (settings.p_values(pairs) < 0.05).mean() <= 0.07


def test_the_detectable_effect_is_found_four_times_of_five() -> None:
    world = World(250, (1, 7))
    for number in range(2):  # a larger effect has a larger error, too
        settings, pairs = world.draw(500, seed=7 + number)
        world = replace(world, effect=_effect(world, -float(np.median(detectable(settings.differences(pairs).spread)))))
    settings, pairs = world.draw(500, seed=9)
    assert 0.75 <= (settings.p_values(pairs) < 0.05).mean() <= 0.85


def _effect(world: World, difference: float) -> float:
    """What makes the world's true difference `difference`, by bisection."""
    low, high = 0.0, 3.0
    for _ in range(40):
        middle = (low + high) / 2
        wrong = replace(world, effect=middle).difference > difference
        low, high = (middle, high) if wrong else (low, middle)
    return low


def test_the_analytic_error_is_the_sandwich_of_statsmodels() -> None:
    rng = np.random.default_rng(0)
    videos = np.sort(rng.integers(0, 40, 150))
    values = (rng.random(150) < 0.3).astype(float) - (rng.random(150) < 0.2)
    data = ClusterSums.of(values[:, None], pd.factorize(videos)[0])
    fit = sm.OLS(values, np.ones(150)).fit(cov_type="cluster", cov_kwds={"groups": videos})
    assert data.standard_error[0] == pytest.approx(fit.bse[0], rel=1e-9)
    assert data.estimate[0] == pytest.approx(fit.params[0]) and data.contributions.sum() == pytest.approx(fit.params[0])


def test_a_macro_mean_weighs_categories_alike_and_its_error_follows() -> None:
    values, videos, kinds = [1, 1, 1, 0, 0, 0, 1, 1], [0, 0, 1, 1, 2, 2, 3, 3], [0, 0, 0, 0, 0, 0, 1, 1]
    assert one_column(values, videos, kinds).estimate[0] == pytest.approx((3 / 6 + 1) / 2)
    assert one_column(values, videos).estimate[0] == pytest.approx(5 / 8)
    # Simulated: 40 videos, each with questions of one of two kinds of unequal size and level, or of both.
    rng, estimates, errors, reach = np.random.default_rng(1), [], [], []
    video = np.repeat(np.arange(40), 4)
    kind = (np.arange(160) % 4 == 0).astype(int) * (video % 2) + (video % 5 == 0) * (np.arange(160) % 4 == 1)
    for _ in range(400):
        easy = rng.normal(0, 0.7, 40)[video]
        data = ClusterSums.of(((easy + 0.8 * kind + rng.normal(size=160)) > 0).astype(float)[:, None], video, kind)
        estimates.append(data.estimate[0])
        errors.append(data.standard_error[0])
    assert np.mean(errors) == pytest.approx(np.std(estimates), rel=0.1)
    reach = critical_values(data)
    assert 2.02 <= reach[0] < 2.4


def test_resampled_errors_are_those_of_the_resampled_questions() -> None:
    """The bootstrap in sums is the bootstrap of the questions: one resample, made by hand."""
    rng = np.random.default_rng(2)
    video, kind = np.repeat(np.arange(12), 3), rng.integers(0, 3, 36)
    values = rng.integers(-1, 2, 36).astype(float)
    data = ClusterSums.of(values[:, None], video, kind)
    drawn = rng.integers(0, 12, 12)
    again = np.concatenate([np.flatnonzero(video == of) for of in drawn])
    copies = ClusterSums.of(values[again][:, None], np.repeat(np.arange(12), 3), kind[again])
    weights = np.bincount(drawn, minlength=12).astype(np.float32)[None]
    t = (copies.estimate - data.estimate) / copies.standard_error
    assert _t_values(data, weights)[0, 0] == pytest.approx(t[0], rel=1e-4)


def test_mcnemar_is_the_exact_test_less_half_the_observed_probability() -> None:
    assert mcnemar_midp(np.array([1.0]), np.array([7.0]))[0] == pytest.approx(0.0390625), "Fagerland et al. 2013"
    for gained, lost in ((0, 0), (3, 9), (12, 4), (0, 6), (40, 61)):
        exact = mcnemar([[0, gained], [lost, 0]], exact=True).pvalue
        observed = math.comb(gained + lost, gained) / 2 ** (gained + lost) if gained != lost else 0
        found = mcnemar_midp(np.array([float(gained)]), np.array([float(lost)]))[0]
        assert found == pytest.approx(exact - observed), (gained, lost)


def test_sign_flips_of_single_questions_are_mcnemars_exact_test() -> None:
    changes = np.array([1.0] * 3 + [-1.0] * 11 + [0.0] * 30)
    assert sign_flip(changes[:, None])[0] == pytest.approx(binomtest(3, 14).pvalue, abs=0.01)
    together = np.array([3.0, -11.0, 0.0])  # the same questions on two videos tell nothing
    assert sign_flip(together[:, None])[0] > 0.4
    assert sign_flip(np.zeros((5, 1)))[0] == 1 and np.isnan(sign_flip(np.full((5, 1), np.nan)))[0]


def test_holm_leaves_missing_p_out() -> None:
    p = np.array([0.01, np.nan, 0.04, 0.03])
    adjusted = holm(p)
    assert np.isnan(adjusted[1]) and adjusted[[0, 2, 3]] == pytest.approx(multipletests(p[[0, 2, 3]], method="holm")[1])
    assert np.isnan(holm(np.array([np.nan]))).all() and len(holm(np.array([]))) == 0


def test_the_seeds_part_is_that_of_a_mixed_model() -> None:
    """Crossed random effects by REML, which in a balanced design are those of the analysis of variance."""
    rng, seeds, videos = np.random.default_rng(3), 4, 25
    scores = (
        0.5 + rng.normal(0, 0.3, (1, seeds)) + rng.normal(0, 0.3, (videos, 1)) + rng.normal(0, 0.5, (videos, seeds))
    )
    table = pd.DataFrame(
        {
            "score": scores.ravel(),
            "video": np.repeat(np.arange(videos), seeds),
            "seed": np.tile(np.arange(seeds), videos),
            "all": 0,
        }
    )
    parts = {"video": "0 + C(video)", "seed": "0 + C(seed)"}
    fit = sm.MixedLM.from_formula("score ~ 1", groups="all", vc_formula=parts, data=table).fit(reml=True)
    effects = dict(zip(fit.model.exog_vc.names, fit.vcomp, strict=True))
    data = ClusterSums.of(scores, np.arange(videos))
    part = SeedPart.of(data)
    assert part.variance[0] - part.interaction[0] == pytest.approx(effects["seed"] / seeds, rel=1e-3)
    mean = ClusterSums.of(scores.mean(1, keepdims=True), np.arange(videos))
    total = effects["seed"] / seeds + effects["video"] / videos + fit.scale / (seeds * videos)
    assert Spread.of(mean, part).error[0] ** 2 == pytest.approx(total, rel=1e-3)


def test_the_seeds_part_counts_where_it_is_more_than_the_interaction() -> None:
    """Three seeds: a standard error is never less than that of the questions, and its degrees of freedom follow."""
    mean = one_column([0.0, 1.0, 2.0, 3.0], [0, 1, 2, 3])
    questions = mean.standard_error[0] ** 2
    for seeds, total, freedom in (
        (SeedPart(np.zeros(1), np.zeros(1), np.ones(1)), questions, 3),  # one seed, or three that are alike
        (SeedPart(np.array([0.3]), np.array([0.1]), np.array([2.0])), questions + 0.2, None),
        (SeedPart(np.array([9.0]), np.array([8.0]), np.array([2.0])), 9.0, 2),  # nothing is left of the questions' own
    ):
        spread = Spread.of(mean, seeds)
        assert spread.error[0] ** 2 == pytest.approx(total)
        mixed = total / ((questions - 0.1) / 3 + 0.3 / 2)
        assert spread.freedom[0] == pytest.approx(freedom or mixed)
    alike = ClusterSums.of(np.array([[1, 0, 1], [0, 1, 0], [1, 1, 1]], dtype=float), np.arange(3))
    assert SeedPart.of(alike).variance[0] == 0, "the seeds' means are equal"
    mixed = ClusterSums.of(np.vstack([np.eye(3), [1, 0, 0]]), np.arange(4))
    assert mixed.estimate.var() > 0 and SeedPart.of(mixed).variance[0] == 0, "they differ less than by the interaction"
    assert SeedPart.of(one_column([1, 0, 1], [0, 1, 2])).variance[0] == 0, "one seed"
    apart = ClusterSums.of(np.array([[1, 0, 0], [1, 0, 0], [1, 0, 1]], dtype=float), np.arange(3))
    part = SeedPart.of(apart)
    assert part.variance[0] == pytest.approx(np.var([1, 0, 1 / 3], ddof=1) / 3) and 0 < part.interaction[0] < 0.2


def test_p_is_where_the_interval_ends_at_0() -> None:
    spread = Spread(np.array([0.1, 0.2, np.nan]), np.array([2.4, 29.0, 1.0]))
    assert spread.p_values(spread.quantiles(0.975) * spread.error)[:2] == pytest.approx(0.05)
    assert spread.p_values(np.zeros(3))[:2] == pytest.approx(1)
    assert np.isnan(spread.p_values(np.ones(3))[2]), "no error: no p"


def test_bounds_and_a_single_video() -> None:
    values, videos = pd.Series([1.0] * 19 + [0.0]), pd.Series(range(20))
    assert clustered_mean(values, videos).high > 1
    assert clustered_mean(values, videos, bounds=(0, 1)).high == 1
    alone = clustered_mean(pd.Series([1.0, 0.0]), pd.Series(["v", "v"]))
    assert alone.mean == 0.5 and math.isnan(alone.low) and math.isnan(alone.high)

"""`python benchmarks/coverage.py`: do 95% intervals hold the truth 95 times of 100, and tests find 5% of nothing?

Made-up benchmarks with a known truth (`tests/simulated.py`). Percentile and BCa intervals are scipy's, with the same
resampling of whole videos.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap
from scipy.stats import t as student
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from simulated import World

from analysis.stats.clusters import Floats
from analysis.stats.measured import Pairs, Settings
from analysis.stats.significance import mcnemar_midp

BATCH = 2000
"""Benchmarks drawn at once, with the same numbers of questions a video; bounds memory."""

WORLDS = [
    World(8, (7, 7)),
    World(30, (1, 1)),
    World(30, (1, 7)),
    World(30, (7, 7)),
    World(30, (1, 7), level=1.5, alike=0.8),
    World(60, (1, 7), level=1.5, alike=0.8),
    World(100, (1, 7)),
    World(100, (7, 7), level=1.5, effect=1.0),
    World(250, (1, 7), level=1.5, alike=0.9),
    World(250, (7, 7)),
    World(100, (7, 7), alike=0.2, own=0.8),
]
SEEDED = [
    *(
        World(videos, (1, 7), seeds=seeds, seed=seed)
        for videos in (30, 100, 250)
        for seeds in (3, 5)
        for seed in (0.0, 0.1, 0.3)
    ),
    *(World(100, (1, 7), seeds=seeds, seed=seed, apart=True) for seeds in (3, 5) for seed in (0.0, 0.1, 0.3)),
]

Shares = list[float]
"""Of benchmarks, in %; one a column."""


def main() -> int:
    """Print two tables; the exit status is 1 where an interval of ours is outside 93 to 97%."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--benchmarks", type=int, default=20_000, help="made up for each row (default: %(default)s)")
    parser.add_argument("--scipy", type=int, default=1000, help="of them by scipy (default: %(default)s)")
    args = parser.parse_args()
    outside = 0
    print(
        "| videos | questions | accuracy | difference | discordant | percentile | BCa | Student's t | ours "
        "| p < .05 | sign flips | McNemar |\n" + "|---" * 12 + "|"
    )
    with tqdm(total=2 * args.benchmarks * (len(WORLDS) + len(SEEDED)), unit="benchmark", unit_scale=True) as bar:
        for world in WORLDS:
            discordant, *shares = _mean(_single, world, args.benchmarks, 1, bar)
            alarms = _mean(_false_alarms, world.equal(), args.benchmarks, 2, bar)
            outside += not 93 <= shares[-1] <= 97
            bar.write(_line(world, f"{discordant:.0f}", *_scipy(world, args.scipy), *shares, *alarms))
        bar.write(
            "\n| videos | questions | accuracy | difference | seeds change | seeds | their deviation "
            "| questions alone | ours | p < .05 |\n" + "|---" * 10 + "|"
        )
        for world in SEEDED:
            alone, ours = _mean(_seeded, world, args.benchmarks, 1, bar)
            found = _mean(_found, world.equal(), args.benchmarks, 2, bar)
            outside += not 93 <= ours <= 97
            change = "other answers" if world.apart else "the same"
            bar.write(_line(world, change, str(world.seeds), str(world.seed), alone, ours, *found))
    print(f"\n{outside} intervals of ours are outside 93 to 97%.")
    return int(outside > 0)


def _line(world: World, *cells: str | float) -> str:
    least, most = world.questions
    shown = [c if isinstance(c, str) else f"{c:.1f}" for c in cells]
    head = [str(world.videos), f"{least}" if least == most else f"{least} to {most}", f"{100 * world.accuracy:.0f}"]
    return "| " + " | ".join([*head, f"{100 * world.difference:+.1f}", *shown]) + " |"


def _mean(
    shares: Callable[[World, Settings, Pairs], Shares], world: World, benchmarks: int, seed: int, bar: tqdm
) -> Shares:
    """`shares` over that many benchmarks, batch by batch; `seed` of the first batch."""
    sizes = [min(BATCH, benchmarks - start) for start in range(0, benchmarks, BATCH)]
    found = []
    for number, size in enumerate(sizes):
        found.append(shares(world, *world.draw(size, seed + 2 * number)))
        bar.update(size)
    return np.average(found, axis=0, weights=sizes).tolist()


def _held(low: Floats, high: Floats, truth: float) -> float:
    return float(100 * ((low <= truth) & (truth <= high)).mean())


def _scipy(world: World, benchmarks: int) -> Shares:
    """How often percentile and BCa intervals hold the truth."""
    settings, pairs = world.draw(BATCH, 1)
    pairs = pairs[:benchmarks]
    data = settings.clusters_of(pairs)
    shares = []
    for method in ("percentile", "BCa"):
        ends = []
        for column in range(len(pairs)):
            parts = data.sums[:, 0, column], data.counts[:, 0, column]
            found = bootstrap(
                parts,
                lambda s, c, axis: s.sum(axis) / c.sum(axis),
                paired=True,
                vectorized=True,
                method=method,
                n_resamples=2000,
                rng=np.random.default_rng(column),
            )
            ends.append(found.confidence_interval)
        low, high = np.array(ends).T
        shares.append(_held(low, high, world.difference))
    return shares


def _single(world: World, settings: Settings, pairs: Pairs) -> Shares:
    """Mean number of discordant questions, and how often Student's interval over videos and ours hold the truth."""
    discordant = np.sum(settings.changed(pairs), axis=0).mean()
    return [float(discordant), *_seeded(world, settings, pairs)]


def _seeded(world: World, settings: Settings, pairs: Pairs) -> Shares:
    """How often Student's interval over videos alone, and ours, hold the truth."""
    data, means = settings.clusters_of(pairs), settings.differences(pairs)
    half = student.ppf(0.975, data.videos - 1) * data.standard_error
    shares = [(data.estimate - half, data.estimate + half), (means.low, means.high)]
    return [_held(low, high, world.difference) for low, high in shares]


def _found(_: World, settings: Settings, pairs: Pairs) -> Shares:
    """How often p < .05."""
    return [float(100 * (settings.p_values(pairs) < 0.05).mean())]


def _false_alarms(world: World, settings: Settings, pairs: Pairs) -> Shares:
    """How often p, sign flips and McNemar's test find something."""
    others = settings.flipped(pairs), mcnemar_midp(*settings.changed(pairs))
    return [*_found(world, settings, pairs), *(float(100 * (p < 0.05).mean()) for p in others)]


if __name__ == "__main__":
    sys.exit(main())

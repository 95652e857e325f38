"""`python benchmarks/coverage.py`: do 95% intervals hold the truth 95 times of 100, and tests find 5% of nothing?

Made-up benchmarks with a known truth (`tests/simulated.py`). Percentile and BCa intervals are scipy's, with the same
resampling of whole videos.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap
from scipy.stats import t as student

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from simulated import World

from analysis.stats.clusters import Floats
from analysis.stats.measured import Pairs, Settings
from analysis.stats.significance import mcnemar_midp

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
    World(videos, (1, 7), seeds=seeds, seed=seed)
    for videos in (30, 100, 250)
    for seeds in (3, 5)
    for seed in (0.0, 0.1, 0.3)
]


def main() -> int:
    """Print two tables; the exit status is 1 where an interval of ours is outside 93 to 97%."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--benchmarks", type=int, default=2000, help="made up for each row (default: %(default)s)")
    parser.add_argument("--scipy", type=int, default=1000, help="of them by scipy (default: %(default)s)")
    args = parser.parse_args()
    outside = 0
    print(
        "| videos | questions | accuracy | difference | discordant | percentile | BCa | Student's t | ours "
        "| p < .05 | sign flips | McNemar |\n" + "|---" * 12 + "|"
    )
    for world in WORLDS:
        settings, pairs = world.draw(args.benchmarks, seed=1)
        shares = [*_scipy(settings, pairs[: args.scipy], world.difference), *_ours(settings, pairs, world.difference)]
        outside += not 93 <= shares[-1] <= 97
        discordant = np.sum(settings.changed(pairs), axis=0).mean()
        print(_line(world, f"{discordant:.0f}", *shares, *_false_alarms(world, args.benchmarks)), flush=True)
    print(
        "\n| videos | questions | accuracy | difference | seeds | their deviation | questions alone | ours | p < .05 |"
    )
    print("|---" * 9 + "|")
    for world in SEEDED:
        settings, pairs = world.draw(args.benchmarks, seed=1)
        alone, ours = _ours(settings, pairs, world.difference)
        outside += not 93 <= ours <= 97
        print(
            _line(world, str(world.seeds), str(world.seed), alone, ours, _false_alarms(world, args.benchmarks)[0]),
            flush=True,
        )
    print(f"\n{outside} intervals of ours are outside 93 to 97%.")
    return int(outside > 0)


def _line(world: World, *cells: str | float) -> str:
    least, most = world.questions
    shown = [c if isinstance(c, str) else f"{c:.1f}" for c in cells]
    head = [str(world.videos), f"{least}" if least == most else f"{least} to {most}", f"{100 * world.accuracy:.0f}"]
    return "| " + " | ".join([*head, f"{100 * world.difference:+.1f}", *shown]) + " |"


def _held(low: Floats, high: Floats, truth: float) -> float:
    return float(100 * ((low <= truth) & (truth <= high)).mean())


def _scipy(settings: Settings, pairs: Pairs, truth: float) -> list[float]:
    """Shares of the percentile and BCa intervals that hold the truth."""
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
        shares.append(_held(low, high, truth))
    return shares


def _ours(settings: Settings, pairs: Pairs, truth: float) -> list[float]:
    """Shares of Student's interval over videos alone, and of ours, that hold the truth."""
    data, means = settings.clusters_of(pairs), settings.differences(pairs)
    half = student.ppf(0.975, data.videos - 1) * data.standard_error
    return [_held(data.estimate - half, data.estimate + half, truth), _held(means.low, means.high, truth)]


def _false_alarms(world: World, benchmarks: int) -> list[float]:
    settings, pairs = world.equal().draw(benchmarks, seed=2)
    found = [settings.p_values(pairs), settings.flipped(pairs), mcnemar_midp(*settings.changed(pairs))]
    return [float(100 * (p < 0.05).mean()) for p in found]


if __name__ == "__main__":
    sys.exit(main())

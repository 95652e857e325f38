"""Training curves: rewards, held-out rewards and gradient norms over steps; seeds become a mean with their range."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.plots.draw import label_panels
from analysis.plots.looks import SEQUENCE
from analysis.plots.style import DOUBLE, LETTERS, legend, wrapped
from analysis.results import ResultsError
from analysis.training import held_out_columns, read_metrics

SMOOTH = 10
"""Steps that a point of a training reward averages over; held-out rewards are drawn as they are."""
PANELS = {
    "token": "reward, token rollouts",
    "greedy": "reward, best tokens",
    "frame": "reward, frame rollouts",
    "norm": "gradient norm, unclipped",
}
ACROSS = 3


def training_curves(runs: Mapping[str, Sequence[Path]]) -> Figure:
    """Draw metrics files of `python -m cacovid train`, label -> one file a seed.

    Raises ResultsError where no file holds a metric, and for a damaged one.
    """
    tables = {label: [read_metrics(file) for file in files] for label, files in runs.items()}
    every = [table for group in tables.values() for table in group]
    names = {name for table in every for name in table}
    held_out = held_out_columns(every)
    panels = {name: f"held-out reward, r = {ratio}" for name, ratio in held_out.items()}
    panels |= {name: words for name, words in PANELS.items() if name in names}
    if not panels:
        raise ResultsError(
            f"no metrics in {', '.join(str(file) for files in runs.values() for file in files) or 'no file'}; "
            f"expected the metrics.jsonl of `python -m cacovid train`"
        )
    across = min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(DOUBLE, 0.35 + 1.55 * down))
    axes = list(figure.subplots(down, across, squeeze=False, sharex=True).flat)
    for axis, (name, words) in zip(axes, panels.items(), strict=False):
        for number, group in enumerate(tables.values()):
            _draw(axis, [table[name] for table in group if name in table], number, smooth=name not in held_out)
        axis.set_title(words)
        if name == "norm" and any((table["norm"] > 0).any() for g in tables.values() for table in g if "norm" in table):
            axis.set_yscale("log")
    label_panels(axes, len(panels), across, "step")
    if len(tables) > 1:
        legend(figure, [_handle(label, len(group), i) for i, (label, group) in enumerate(tables.items())])
    return figure


def _draw(axis: Axes, columns: list[pd.Series], number: int, *, smooth: bool) -> None:
    if not columns:
        return
    window = SMOOTH if smooth else 1
    both = pd.concat([column.dropna().rolling(window, min_periods=1).mean() for column in columns], axis=1)
    colour, line = SEQUENCE[number % len(SEQUENCE)]
    marker = "o" if not smooth and len(both) < 40 else None
    axis.plot(both.index, both.mean(axis=1), ls=line, lw=1.1, color=colour, marker=marker, ms=2)
    if len(columns) > 1:
        axis.fill_between(both.index, both.min(axis=1), both.max(axis=1), alpha=0.2, lw=0, color=colour)


def _handle(label: str, seeds: int, number: int) -> Line2D:
    colour, line = SEQUENCE[number % len(SEQUENCE)]
    words = f"{label} ({seeds} seeds)" if seeds > 1 else label
    return Line2D([], [], color=colour, ls=line, lw=1.1, label=wrapped(words, LETTERS))

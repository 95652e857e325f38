"""Pieces that several figures share: a row's points with their intervals, and the uncompressed model's line."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.plots.looks import HOLLOW, SEED, handle, marker_style
from analysis.plots.part import Part, Row
from analysis.plots.style import LETTERS, LETTERS_BESIDE, MANY, shortened, wrapped


def draw_row(axis: Axes, row: Row, table: pd.DataFrame, places: Sequence[float], *, faint: bool = False) -> None:
    """A row's points over `places`, joined: means, thin 95% intervals, and a dash for the mean of each seed.

    Points that spent another budget than asked are hollow. `faint`: lighter intervals, for small panels.
    """
    colour, ours = row.look.colour, row.method in ("cacovid", "full")
    front = 4 if ours else 3
    axis.vlines(
        places, table["low"], table["high"], color=colour, lw=0.6, alpha=0.3 if faint else 0.55, zorder=front - 1
    )
    axis.plot(places, table["mean"], ls=row.look.line, color=colour, lw=1.4 if ours else 0.9, zorder=front)
    for place, mean, missed, seeds in zip(places, table["mean"], table["missed"], table["seeds"], strict=True):
        axis.plot(place, mean, ls="none", zorder=front + 0.5, **marker_style(row.look, hollow=missed))
        axis.plot([place] * len(seeds), seeds, ls="none", marker="_", ms=3, mew=0.6, color=colour, zorder=front)


def draw_uncompressed(axis: Axes, table: pd.DataFrame, *, upright: bool = False) -> None:
    """The all-tokens line with its 95% band, if there is one: across, or upright where accuracy is the x axis."""
    for full in table[table["method"] == "full"].itertuples():
        across, band = (axis.axvline, axis.axvspan) if upright else (axis.axhline, axis.axhspan)
        band(full.low, full.high, color="black", alpha=0.08, lw=0, zorder=0)
        across(full.mean, zorder=1, **_UNCOMPRESSED)


_UNCOMPRESSED: dict[str, Any] = {"color": "black", "lw": 0.8, "ls": (0, (6, 2))}


def fit_percent(axis: Axes, table: pd.DataFrame) -> None:
    """The y axis from the lowest to the highest interval, with room for markers at 0 and 100%."""
    low, high = float(table["low"].min()), float(table["high"].max())
    margin = max(2.0, 0.06 * (high - low))
    axis.set_ylim(max(-4.0, low - margin), min(104.0, high + margin))


def entries(part: Part, table: pd.DataFrame, *, uncompressed_line: bool = False) -> list[Line2D]:
    """The legend's entries for the rows of `table`, and `marks`.

    `uncompressed_line`: the uncompressed model is drawn by `draw_uncompressed`, not as a point.
    """
    rows = [row for row, _ in part.ordered(table)]
    out = []
    for row in rows:
        label = shortened(row.name, LETTERS_BESIDE) if len(rows) > MANY else wrapped(row.name, LETTERS)
        line = uncompressed_line and row.method == "full"
        out.append(Line2D([], [], label=label, **_UNCOMPRESSED) if line else handle(label, row.look))
    return out + marks(table)


def marks(table: pd.DataFrame) -> list[Line2D]:
    """The legend's entries for what hollow markers and ticks mean, where there are any."""
    return [HOLLOW] * bool(table["missed"].any()) + [SEED] * bool(table["seeds"].map(bool).any())


def label_panels(axes: Sequence[Axes], count: int, across: int, x: str, y: str = "") -> None:
    """Name the axes of `count` panels that share them, at the left and wherever nothing is below; hide the rest."""
    for number, axis in enumerate(axes):
        axis.set_visible(number < count)
        if number % across == 0:
            axis.set_ylabel(y)
        if number + across >= count:
            axis.set_xlabel(x)
            axis.tick_params(labelbottom=True)

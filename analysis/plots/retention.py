"""Accuracy and evidence recall over the retention ratio, all questions together and by category."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.plots.draw import draw_row, draw_uncompressed, entries, fit_percent, label_panels, marks
from analysis.plots.looks import marker_style
from analysis.plots.part import Part, Row
from analysis.plots.style import DOUBLE, LETTERS, SINGLE, chart, legend, legend_height, shortened, wrapped
from analysis.results import ResultsError

ACROSS = 4
"""Panels in a row of small multiples."""
_AT_RANDOM: dict[str, Any] = {"color": "black", "lw": 0.8, "ls": (0, (1, 1))}


def accuracy_over_retention(part: Part) -> Figure:
    """Accuracy over r with 95% intervals, and the all-tokens line with its band; at one ratio alone, sorted rows."""
    table = part.accuracy
    if _ratios(table).size == 0:
        raise ResultsError(f"no compressed run of {part.title}, expected a method at r < 1")
    return _figure(part, table, "accuracy (%)")


def evidence_over_retention(part: Part) -> Figure:
    """Share of the evidence tokens kept, over r; keeping tokens at random keeps r of them."""
    table = part.evidence
    table = table[table["method"] != "full"]
    if table.empty:
        raise ResultsError(f"no compressed run of {part.title} has an evidence recall; only the test bed knows it")
    return _figure(part, table, "evidence tokens kept (%)", expected=True)


def accuracy_by_category(part: Part) -> Figure:
    """`accuracy_over_retention` for each category (question kind, video length), one panel each."""
    table = part.categories
    if _ratios(table).size == 0:
        raise ResultsError(f"the questions of {part.title} have no category, or no method was run at r < 1")
    names = _in_order(table["task"].str.partition("/")[2].unique())
    across = min(ACROSS, len(names))
    down = -(-len(names) // across)
    handles = entries(part, table, uncompressed_line=True)
    figure = Figure(figsize=(DOUBLE, max(0.5 + 1.4 * down, legend_height(handles))))
    axes = list(figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).flat)
    for axis, name in zip(axes, names, strict=False):
        panel = table[table["task"] == f"{part.task}/{name}"]
        _panel(part, axis, panel, faint=True)
        axis.set_title(f"{shortened(name, 22)} (n = {int(panel['questions'].max())})")
    label_panels(axes, len(names), across, "retention ratio r (%)", "accuracy (%)")
    fit_percent(axes[0], table)
    legend(figure, handles)
    return figure


def _figure(part: Part, table: pd.DataFrame, label: str, *, expected: bool = False) -> Figure:
    """Lines over r, or sorted rows where there is but one r; `expected`: with what random tokens would give."""
    ratios = 100 * _ratios(table)
    if len(ratios) == 1:
        return _sorted_rows(part, table, label, expected=expected)
    random = Line2D(ratios, ratios, label="expected at random", **_AT_RANDOM)
    handles = entries(part, table, uncompressed_line=True) + [random] * expected
    figure = chart(handles)
    figure.set_label(_in_words(part, table, label))
    axis = figure.subplots()
    _panel(part, axis, table)
    if expected:
        axis.add_line(random)
    fit_percent(axis, table)
    axis.set_xlabel("retention ratio r (%)")
    axis.set_ylabel(label)
    legend(figure, handles)
    return figure


def _in_words(part: Part, table: pd.DataFrame, label: str) -> str:
    """What is drawn, a line a point: for readers who cannot see it, and to check it against tables."""
    lines = [f"{label} over retention ratio, {part.title}: mean [95% interval]"]
    for row, group in part.ordered(table):
        for point in group.itertuples():
            seeds = f", {len(point.seeds)} seeds" if point.seeds else ""
            where = f"{row.name}, r = {100 * point.retention_asked:g}%{seeds}"
            lines.append(f"{where}: {point.mean:.1f} [{point.low:.1f}, {point.high:.1f}]")
    return "\n".join(lines)


def _panel(part: Part, axis: Axes, table: pd.DataFrame, *, faint: bool = False) -> None:
    """The lines of all rows; at one ratio they stand side by side, so that no interval hides another."""
    ratios = 100 * _ratios(table)
    rows = part.ordered(table[table["method"] != "full"])
    draw_uncompressed(axis, table)
    step = min([5.0, *np.diff(ratios)])
    offsets = np.linspace(-0.32, 0.32, len(rows)) * step if len(rows) > 1 else [0.0]
    for offset, (row, group) in zip(offsets, rows, strict=True):
        draw_row(axis, row, group, (100 * group["retention_asked"] + offset).to_list(), faint=faint)
    axis.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])


def _sorted_rows(part: Part, table: pd.DataFrame, label: str, *, expected: bool) -> Figure:
    """One ratio: rows from best to worst, values across."""
    rows = sorted(part.ordered(table[table["method"] != "full"]), key=_mean)
    names = [wrapped(row.name, LETTERS) for row, _ in rows]
    figure = Figure(figsize=(SINGLE, 0.6 + (0.25 if any("\n" in name for name in names) else 0.16) * len(rows)))
    figure.set_label(_in_words(part, table, label))
    axis = figure.subplots()
    draw_uncompressed(axis, table, upright=True)
    for place, (row, group) in enumerate(rows):
        axis.hlines(place, group["low"], group["high"], color=row.look.colour, lw=0.9, alpha=0.6)
        hollow = bool(group["missed"].any())
        axis.plot(group["mean"], [place], ls="none", **marker_style(row.look, hollow=hollow))
        for seeds in group["seeds"]:
            axis.plot(seeds, [place] * len(seeds), ls="none", marker="|", ms=3, mew=0.6, color=row.look.colour)
    axis.set_yticks(range(len(rows)), names)
    axis.set_ylim(-0.7, len(rows) - 0.3)
    axis.grid(False, axis="y")
    ratio = 100 * _ratios(table)[0]
    axis.set_xlabel(f"{label}, r = {ratio:g}%")
    handles = marks(table)
    if expected:
        handles.append(axis.axvline(ratio, label="expected at random", zorder=1, **_AT_RANDOM))
    legend(figure, handles)
    return figure


def _mean(pair: tuple[Row, pd.DataFrame]) -> float:
    return float(pair[1]["mean"].iloc[0])


def _ratios(table: pd.DataFrame) -> np.ndarray:
    """Ratios of the compressed rows, rising."""
    return np.sort(table.loc[table["method"] != "full", "retention_asked"].unique())


def _in_order(names: np.ndarray) -> list[str]:
    """Lengths by length, all else by name."""
    lengths = ("short", "medium", "long")
    return sorted(names, key=lambda name: (lengths.index(name) if name in lengths else len(lengths), name))

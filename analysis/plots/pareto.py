"""Accuracy against what it costs: time, FLOPs, tokens, memory; with the Pareto front."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from analysis.plots.draw import draw_row, entries, fit_percent
from analysis.plots.memory import peak_memory
from analysis.plots.part import Part
from analysis.plots.stages import stage_seconds, time_unit
from analysis.plots.style import chart, legend
from analysis.results import ResultsError


@dataclass(frozen=True)
class Cost:
    """An x axis: its label, and the stages whose medians it adds, or the column of samples whose mean it shows.

    Without either it is peak memory.
    """

    label: str
    stages: tuple[str, ...] = ()
    column: str = ""  # a share: shown in %


COSTS = {
    "latency": Cost("compressor + prefill, median time", stages=("compress", "prefill")),
    "ttft": Cost("vision + compressor + prefill, median time", stages=("vision", "compress", "prefill")),
    "flops": Cost("LLM + compressor FLOPs (% of uncompressed)", column="flops_ratio"),
    "tokens": Cost("video tokens over LLM layers (% of uncompressed)", column="layer_average"),
    "memory": Cost("peak memory above the weights"),
}


def accuracy_against(part: Part, cost: str) -> Figure:
    """Accuracy with 95% intervals over a cost of COSTS, each row's ratios joined, and the Pareto front.

    A point is left out where no sample has the cost (a stored video has no vision time). Raises ResultsError where
    that leaves nothing, for times on different hardware, and as `peak_memory` does.
    """
    known = COSTS[cost]
    table = part.accuracy
    label = known.label
    if known.stages:
        seconds = stage_seconds(part.results, table).reindex(columns=list(known.stages))
        costs = seconds.sum(axis=1, min_count=len(known.stages))
        unit, name = time_unit(part, costs.max())
        label = f"{label} ({name})"
    elif known.column:
        costs, unit = part.means(table, known.column), 100.0
    else:
        costs, measured_on = peak_memory(part, table)
        unit, name = (2.0**-30, "GiB") if costs.max() >= 2**30 else (2.0**-20, "MiB")
        label = f"{label} ({name})\n{measured_on}"
    table = table.assign(cost=unit * costs)
    table = table[table["cost"].notna()]
    if table.empty:
        wanted = " and ".join(f"seconds_{stage}" for stage in known.stages) or known.column or "peak memory"
        raise ResultsError(f"no sample of {part.title} has {wanted}, which this figure is about")
    front = _front(table)
    handles = [*entries(part, table), front]
    figure = chart(handles)
    axis = figure.subplots()
    axis.add_line(front)
    for row, group in part.ordered(table):
        draw_row(axis, row, group, group["cost"].to_list())
    _scale(axis, table["cost"])
    fit_percent(axis, table)
    axis.set_xlabel(label)
    axis.set_ylabel("accuracy (%)")
    legend(figure, handles)
    return figure


def pareto_front(costs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Indices of the points that no other beats in both, by rising cost.

    >>> pareto_front(np.array([1.0, 2.0, 3.0, 3.0]), np.array([5.0, 4.0, 6.0, 7.0]))
    array([0, 3])
    """
    order = np.lexsort((-values, costs))
    best = np.maximum.accumulate(values[order])
    return order[np.r_[True, values[order][1:] > best[:-1]]]


def _front(table: pd.DataFrame) -> Line2D:
    """The best accuracy that can be had for each cost."""
    costs, means = table["cost"].to_numpy(), table["mean"].to_numpy()
    best = pareto_front(costs, means)
    return Line2D(
        costs[best], means[best], drawstyle="steps-post", color="#BBBBBB", lw=2.5, zorder=1, label="Pareto front"
    )


def _scale(axis: Axes, costs: pd.Series) -> None:
    """Logarithmic where costs span more than threefold: else compressed rows crowd at the left of all tokens."""
    low, high = float(costs.min()), float(costs.max())
    if low > 0 and high / low > 3:
        axis.set_xscale("log")
        subs = (1, 2, 5) if high / low > 20 else (1, 1.5, 2, 3, 5, 7)
        axis.xaxis.set_major_locator(LogLocator(subs=subs))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_xlim(low / 1.12, high * 1.12)

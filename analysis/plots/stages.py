"""Where the time goes: the stages of a question, side by side, one bar a row."""

import json

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.plots.looks import STAGE_COLOURS
from analysis.plots.part import Part
from analysis.plots.style import DOUBLE, shortened
from analysis.results import Results, ResultsError


def stage_seconds(results: Results, table: pd.DataFrame) -> pd.DataFrame:
    """Median seconds of each stage for each row of `table` (of `Part.accuracy`), over the samples that had the stage.

    A sample without a stage's time, or with 0 (a video that was still at hand from the question before), did not
    have it; a stage that no sample had is missing, not 0.
    """
    samples = results.samples
    known = [stage for stage in STAGE_COLOURS if f"seconds_{stage}" in samples]
    place = {run: number for number, runs in zip(table.index, table["runs"], strict=True) for run in runs}
    columns = samples[[f"seconds_{stage}" for stage in known]].rename(columns=lambda c: c.removeprefix("seconds_"))
    return columns.where(columns > 0).groupby(samples["run"].map(place)).median().reindex(table.index)


def time_unit(part: Part, longest: float) -> tuple[float, str]:
    """Factor from seconds and the unit's name, for times up to `longest` seconds.

    A batch's stages count whole for each of its samples, so a batch is named. Raises ResultsError for times on
    different hardware.
    """
    machines = sorted(part.results.runs["hardware"].dropna().unique())
    if len(machines) > 1 and "hardware" not in part.allow:
        raise ResultsError(
            f"times of {part.title} are from {' and '.join(machines)}; give the runs of one machine, or let it differ "
            f"with --allow hardware"
        )
    sizes = {str(json.loads(setup).get("batch_size", 1)) for setup in part.results.runs["setup"]} - {"1", "None"}
    factor, name = (1000.0, "ms") if longest < 1 else (1.0, "s")
    return factor, f"{name} a batch of {' or '.join(sorted(sizes))}" if sizes else name


def stage_bars(part: Part) -> Figure:
    """Stacked medians of the stages, one bar a row, one panel a ratio.

    Raises ResultsError where no sample has a time, and for runs on different hardware.
    """
    table = part.accuracy
    seconds = stage_seconds(part.results, table) if len(table) else pd.DataFrame()
    if seconds.empty or seconds.isna().all(axis=None):
        raise ResultsError(f"no sample of {part.title} has stage times")
    unit, name = time_unit(part, seconds.sum(axis=1).max())
    full = table[table["method"] == "full"]
    ratios = sorted(table.loc[table["method"] != "full", "retention_asked"].unique(), reverse=True) or [1.0]
    rows = part.ordered(table)
    figure = Figure(figsize=(DOUBLE, 0.75 + 0.15 * len(rows)))
    axes = figure.subplots(1, len(ratios), squeeze=False, sharex=True, sharey=True)[0]
    for axis, ratio in zip(axes, ratios, strict=True):
        here = pd.concat([full, table[(table["retention_asked"] == ratio) & (table["method"] != "full")]])
        for place, (_, group) in enumerate(rows):
            start = 0.0
            for stage, value in seconds.loc[group.index.intersection(here.index)].sum(min_count=1).dropna().items():
                axis.barh(place, unit * value, left=start, height=0.72, color=STAGE_COLOURS[str(stage)])
                start += unit * value
        axis.set_title(f"r = {100 * ratio:g}%")
        axis.grid(False, axis="y")
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel(f"time ({name})")
    axes[0].set_yticks(range(len(rows)), [shortened(row.name, 40) for row, _ in rows])
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    handles = [Patch(color=STAGE_COLOURS[stage], label=stage) for stage in seconds if seconds[stage].notna().any()]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), handlelength=1.2)
    return figure

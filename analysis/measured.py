"""Cells of tables: runs of one label, budget and retention on one backbone and task, with their intervals."""

from collections.abc import Collection
from dataclasses import replace

import pandas as pd

from analysis.compatible import check_compatible
from analysis.labels import labels
from analysis.results import Results
from analysis.stats import Interval
from analysis.stats.compare import compare

CELL = ["backbone", "task", "label", "budget", "retention_asked"]
"""What a cell goes by; seeds are pooled."""

MEANS = ("retention", "entering", "layer_average", "decode_share", "flops_ratio", "evidence_recall", "missed")
"""Columns of samples that a cell has the mean of."""


def comparable(results: Results, allow: Collection[str] = (), also: Collection[str] = ()) -> Results:
    """The measured runs, of several of one setting (cell, method's fields, seed) the newest; seeds under one label.

    Raises ResultsError as `check_compatible` does.
    """
    measured = _pooled(results.of(results.runs["kind"] != "published"))
    check_compatible(measured.runs, allow, also)
    order = measured.runs.sort_values(["started", "run"])
    newest = order.drop_duplicates([*CELL, "kind", "fields", "seed"], keep="last")
    return measured.of(measured.runs["run"].isin(newest["run"]))


def _pooled(results: Results) -> Results:
    """Runs that differ in their seed alone under one label; a label that names the seed gives way to the settings."""
    runs = results.runs
    names = labels(list(zip(runs["method"], runs["fields"], strict=True)))
    setting = runs.groupby(["method", "fields", "budget", "backbone", "task", "retention_asked"], dropna=False)
    several = (setting["label"].transform("nunique") > 1) & (setting["seed"].transform("nunique") > 1)
    seeded = set(zip(*(runs.loc[several, c] for c in ("method", "fields", "budget")), strict=True))
    pooled = [
        names[row.method, row.fields] if (row.method, row.fields, row.budget) in seeded else row.label
        for row in runs.itertuples()
    ]
    return replace(results, runs=runs.assign(label=pooled))


def by_category(results: Results, task: str) -> Results:
    """The categories of `task` as tasks of their own, `<task>/<category>`, each with its samples; run ids as before."""
    of_task = results.runs["task"] == task
    samples = results.of(of_task).samples
    samples = samples[samples["category"].notna()]
    samples = samples.assign(task=samples["task"] + "/" + samples["category"])
    runs = results.runs[of_task].drop(columns="task").merge(samples[["run", "task"]].drop_duplicates(), on="run")
    return Results(runs.assign(score=float("nan"))[list(results.runs.columns)], samples)


def cells(results: Results, *, common: bool = True) -> pd.DataFrame:
    """A row for each cell, in a stable order.

    Columns: CELL; kind, method; fields, setup, hardware of its first run; runs, their ids; seeds, how many of them
    were averaged; n, questions with a score; unscored, samples without one; accuracy, an `Interval` in 0..1 (NaN
    bounds: its source told no more; None: no score); difference, the paired one to the uncompressed model, None
    without one; tied, whether it is the best compressed one of its budget and retention or not shown to be worse;
    MEANS over samples; seconds_<stage>, medians.

    Args:
        common: see `analysis.stats.compare.compare`, which raises ResultsError.
    """
    compared = compare(results, common=common)
    first = results.runs.drop_duplicates("run").set_index("run")[["fields", "setup", "hardware"]]
    table = pd.concat(
        [
            compared[[*CELL, "kind", "method", "runs", "seeds"]],
            first.loc[[runs[0] for runs in compared["runs"]]].reset_index(drop=True),
            compared["questions"].fillna(0).astype(int).rename("n"),
            spent(results, compared),
        ],
        axis=1,
    )
    table["accuracy"] = _intervals(compared, "accuracy")
    table["difference"] = _intervals(compared, "difference")
    return table.assign(tied=compared["tied"].fillna(False).astype(bool) & compared["method"].ne("full"))


def _intervals(compared: pd.DataFrame, name: str) -> list[Interval | None]:
    columns = compared[[name, f"{name}_low", f"{name}_high"]].astype("float64")
    return [None if pd.isna(row[0]) else Interval(*row) for row in columns.itertuples(index=False, name=None)]


def spent(results: Results, compared: pd.DataFrame) -> pd.DataFrame:
    """What the samples of each row of `compare` spent on average (MEANS), median times, and how many have no score."""
    place = compared[["task", "runs"]].explode("runs").rename_axis("cell").reset_index().rename(columns={"runs": "run"})
    samples = results.samples.merge(place, on=["run", "task"])
    stages = [name for name in samples if name.startswith("seconds_")]
    grouped = samples.groupby("cell")
    unscored = samples["score"].isna().groupby(samples["cell"]).sum().rename("unscored")
    found = pd.concat([grouped[list(MEANS)].mean().astype("float64"), grouped[stages].median(), unscored], axis=1)
    found = found.reindex(compared.index)
    return found.assign(unscored=found["unscored"].fillna(0).astype(int))

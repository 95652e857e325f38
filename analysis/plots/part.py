"""What one set of figures is about: the runs of one backbone on one task, and how their rows are called and drawn."""

import warnings
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from analysis.measured import by_category, comparable
from analysis.plots.looks import Look, look, order, title
from analysis.results import Results, ResultsError, ResultsWarning
from analysis.stats.compare import compare
from analysis.tasks import task_of

ROW = ["label", "budget", "kind"]
"""Columns of runs that a row of a figure goes by."""


@dataclass(frozen=True)
class Row:
    """A method with its settings at all its ratios: one line, one colour, one entry of the legend."""

    name: str
    method: str
    look: Look


@dataclass(frozen=True)
class Part:
    """The comparable runs of one backbone and task."""

    backbone: str
    task: str
    results: Results
    allow: tuple[str, ...] = ()  # what may differ between its runs
    memory: pd.DataFrame | None = None  # rows of the latency protocol, of any backbone: `memory_rows`

    @property
    def title(self) -> str:
        """In messages, e.g. `evidence_vqa, llava_ov`."""
        return f"{self.task}, {self.backbone}"

    @cached_property
    def rows(self) -> dict[tuple[str, ...], Row]:
        """By ROW's values, in the order of legends."""
        known = self.results.runs[[*ROW, "method"]].drop_duplicates()
        ordered = sorted(known.itertuples(index=False), key=lambda row: (order(row.method, row.label), row))
        several = known.groupby("label")[["budget", "kind"]].nunique() > 1
        out: dict[tuple[str, ...], Row] = {}
        for label, budget, kind, method in ordered:
            variant = sum(row.method == method for row in out.values())
            words = [title(label, method)]
            if several.at[label, "budget"] and budget != "nominal":
                words.append(f"r as {budget.replace('_', ' ')}")
            if several.at[label, "kind"] and kind != "cacovid":
                words.append("lmms-eval's output")
            out[label, budget, kind] = Row(", ".join(words), method, look(method, variant))
        return out

    @cached_property
    def accuracy(self) -> pd.DataFrame:
        """A line for each row and ratio.

        Columns: ROW, task, method, retention_asked, runs, questions; mean, low, high in %, as
        `analysis.stats.compare` finds them; seeds, a list of the means of its runs where there are several; missed,
        whether a sample spent another budget than asked. Where the uncompressed model was run, other methods at
        r = 1, which give the same answers, are left out; so is what has a single video and so no interval.
        """
        return _points(self.results)

    @cached_property
    def evidence(self) -> pd.DataFrame:
        """As `accuracy`, of evidence recall; empty where no sample has one."""
        samples = self.results.samples
        return _points(Results(self.results.runs, samples.assign(score=samples["evidence_recall"])))

    @cached_property
    def categories(self) -> pd.DataFrame:
        """As `accuracy`, for every category of the task; `task` ends in `/<category>`. Empty without categories."""
        return _points(by_category(self.results, self.task))

    def means(self, table: pd.DataFrame, column: str) -> pd.Series:
        """Mean of a column of samples for each line of `table`; missing where it is not known."""
        samples = self.results.samples
        known = samples[column] if column in samples else pd.Series(float("nan"), samples.index)
        by_run = known.groupby(samples["run"]).mean()
        return pd.Series([by_run.reindex(list(runs)).mean() for runs in table["runs"]], table.index, dtype=float)

    def ordered(self, table: pd.DataFrame) -> list[tuple[Row, pd.DataFrame]]:
        """The rows that `table` has, in order, each with its part of it by rising ratio."""
        groups = {key: group.sort_values("retention_asked") for key, group in table.groupby(ROW)}
        return [(row, groups[key]) for key, row in self.rows.items() if key in groups]


def _points(results: Results) -> pd.DataFrame:
    samples = results.samples
    scored = samples.loc[samples["score"].notna(), "run"].unique()
    runs = results.runs[results.runs["run"].isin(scored)]
    if runs.empty:
        return pd.DataFrame(columns=[*ROW, "method", "retention_asked", "runs"])
    samples = samples[samples["run"].isin(scored)]
    table = compare(Results(runs, samples), common=True)  # as in tables
    if (table["method"] == "full").any():
        table = table[(table["method"] == "full") | (table["retention_asked"] < 1)].reset_index(drop=True)
    table = table[table["accuracy_low"].notna()].reset_index(drop=True)
    percent = {"mean": "accuracy", "low": "accuracy_low", "high": "accuracy_high"}
    table = table.assign(**{new: 100 * table[old].astype(float) for new, old in percent.items()})
    means = samples.groupby(["task", "run"])["score"].mean()
    if task_of(runs["task"].iloc[0]).macro:
        means = samples.groupby(["task", "run", "category"])["score"].mean().groupby(["task", "run"]).mean()
    table["seeds"] = [
        [100 * float(means[row.task, run]) for run in row.runs] if len(row.runs) > 1 else []
        for row in table.itertuples()
    ]
    missed = samples.loc[samples["missed"].eq(True), "run"].unique()
    table["missed"] = [not set(ids).isdisjoint(missed) for ids in table["runs"]]
    return table[[*ROW, "task", "method", "retention_asked", "runs", "questions", *percent, "seeds", "missed"]]


def parts(results: Results, allow: Collection[str] = (), memory: pd.DataFrame | None = None) -> list[Part]:
    """The parts of `results`, each with `memory`; runs without samples (published numbers) are in none: they have no
    interval.

    Warns (ResultsWarning) of questions that have no score. Raises ResultsError where no run has samples, and where
    runs of one part differ in what they must share and `allow` does not list; the hardware matters to times alone.
    """
    measured = results.of(results.runs["run"].isin(results.samples["run"].unique()))
    if measured.runs.empty:
        raise ResultsError(
            "no run with samples to draw: an accuracy is never drawn without its interval; "
            "give folders of run directories or of lmms-eval outputs with --log_samples"
        )
    usable = comparable(measured, set(allow) - {"hardware"})
    if unscored := int(usable.samples["score"].isna().sum()):
        warnings.warn(
            f"{unscored} of {len(usable.samples)} questions have no score (failed or not scorable) and are left out",
            ResultsWarning,
            stacklevel=2,
        )
    keys = usable.runs.groupby(["backbone", "task"], sort=True).groups
    return [
        Part(b, t, usable.of((usable.runs["backbone"] == b) & (usable.runs["task"] == t)), tuple(allow), memory)
        for b, t in keys
    ]

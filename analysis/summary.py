"""One table of a results folder: accuracy never without its interval, tokens and cost."""

import json
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from analysis.labels import labels
from analysis.load import load
from analysis.measured import cells
from analysis.results import Results, ResultsError, ResultsWarning
from analysis.stats import Interval

COLUMNS = (
    *("method", "r asked", "r kept", "layer avg", "FLOPs", "accuracy", "vs all tokens", "evidence"),
    *("n", "seeds", "missed"),
)
"""`seeds`: how many were averaged; `missed`: share of the samples whose realised budget is another one than asked."""

_FROM = {
    "method": "label",
    "r asked": "retention_asked",
    "r kept": "retention",
    "layer avg": "layer_average",
    "FLOPs": "flops_ratio",
    "accuracy": "accuracy",
    "vs all tokens": "difference",
    "evidence": "evidence_recall",
    "n": "n",
    "seeds": "seeds",
    "missed": "missed",
}
"""Column -> what it is in `analysis.measured.cells`."""

SETUP = ("dtype", "attention", "sampling", "form", "generation")
"""Of a run's setup, what runs in this table must share with the newest, beside backbone, checkpoint and frames."""


def row_names(runs: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Name of each (method, fields)."""
    pairs = runs[["method", "fields"]].drop_duplicates()
    return labels(pairs.itertuples(index=False, name=None))


def chosen(folder: Path, *, leave_out: bool = False) -> Results:
    """The runs that belong into one table, named; the meaning of the ratio stands among a run's `fields`.

    Those of the newest run's setup (checkpoint, frames, dtype, ...), and of several runs of one setting and seed the
    newest. Raises ResultsError where questions have no score; with `leave_out` they go, with a ResultsWarning.
    """
    results = load(folder)
    runs = results.runs
    runs["setup"] = [_setup(run) for run in runs.to_dict("records")]
    runs["fields"] = [_fields(run) for run in runs.to_dict("records")]
    runs = runs[runs["setup"] == runs.loc[runs["started"].idxmax(), "setup"]]
    setting = runs.groupby(["task", "method", "fields", "seed", "retention_asked"], dropna=False)
    runs = runs[runs["started"] == setting["started"].transform("max")]
    names = row_names(runs)
    several = runs["task"].nunique() > 1
    runs = runs.assign(
        label=[
            f"{row.task}: {names[row.method, row.fields]}" if several else names[row.method, row.fields]
            for row in runs.itertuples()
        ]
    )
    samples = results.samples[results.samples["run"].isin(runs["run"])]
    if missing := int(samples["score"].isna().sum()):
        words = f"{missing} of {len(samples)} samples below {folder} have no score (failed or not scorable)"
        if not leave_out:
            raise ResultsError(f"{words}; look at their `failure` in samples.jsonl")
        warnings.warn(f"{words} and are left out", ResultsWarning, stacklevel=2)
        samples = samples[samples["score"].notna()]
    return Results(runs, samples)


def scored_samples(folder: Path) -> pd.DataFrame:
    """The samples of `chosen` that have a score, each with its run's method, fields and retention_asked."""
    results = chosen(folder, leave_out=True)
    return results.samples.merge(results.runs[["run", "method", "fields", "retention_asked"]], on="run")


def _setup(run: dict[str, Any]) -> str:
    setup = json.loads(run["setup"])
    return str([*(run[name] for name in ("kind", "backbone", "checkpoint", "frames")), *(setup.get(n) for n in SETUP)])


def _fields(run: dict[str, Any]) -> str:
    return json.dumps({**json.loads(run["fields"]), "budget": run["budget"]}, sort_keys=True)


def summary(folder: Path) -> pd.DataFrame:
    """A row for each method, settings and retention: columns as in COLUMNS, intervals as `Interval`.

    `vs all tokens` is the paired difference to `full` on the questions that all runs have, None for `full` itself.
    Seeds are averaged question by question. Raises ResultsError as `chosen` and `analysis.stats.compare.compare` do.
    """
    found = cells(chosen(folder), common=True)
    first = found["method"].map({"full": 0, "random": 1}).fillna(2)
    found = found.assign(_first=first).sort_values(
        ["task", "retention_asked", "_first", "label"], ascending=[True, False, True, True], ignore_index=True
    )
    return pd.DataFrame({column: found[name] for column, name in _FROM.items()}, columns=list(COLUMNS))


def _cell(column: str, value: object) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "-"
    if isinstance(value, Interval):
        sign = "+" if column == "vs all tokens" else ""
        mean, low, high = (f"{100 * bound:{sign}.1f}" for bound in (value.mean, value.low, value.high))
        return mean if pd.isna(value.low) else f"{mean} [{low}, {high}]"
    if column == "r asked":
        return f"{value:.2f}"
    if isinstance(value, float):
        return f"{100 * value:.1f}%"
    return str(value)


def to_text(table: pd.DataFrame) -> list[list[str]]:
    """The table's cells as text, percentages; '-' = not known."""
    return [[_cell(c, v) for c, v in zip(COLUMNS, row, strict=True)] for row in table.itertuples(index=False)]


def to_markdown(table: pd.DataFrame) -> str:
    """The table in Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(row) + " |" for row in to_text(table)]
    return "\n".join(lines) + "\n"


def to_terminal(table: pd.DataFrame) -> None:
    """Print the table, a rule between retention ratios."""
    out = Table(title="Accuracy in %, 95% interval by video; FLOPs of LLM and compressor vs all tokens")
    for column in COLUMNS:
        out.add_column(column, no_wrap=True)
    for previous, row in zip(
        [None, *table["r asked"]], zip(table["r asked"], to_text(table), strict=True), strict=False
    ):
        if previous is not None and previous != row[0]:
            out.add_section()
        out.add_row(*row[1])
    wide = Console(width=10_000).measure(out).maximum
    Console(width=max(wide, Console().width)).print(out)

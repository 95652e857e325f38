"""One table of a results folder: accuracy never without its interval, tokens and cost."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from analysis.labels import labels
from analysis.load import load
from analysis.results import ResultsError
from analysis.stats import Interval, clustered_mean

COLUMNS = ("method", "r asked", "r kept", "layer avg", "FLOPs", "accuracy", "vs all tokens", "evidence", "n", "missed")
"""`missed`: share of the samples whose realised budget is another one than asked."""


SETUP = ("dtype", "attention", "sampling", "form", "generation")
"""Of a run's setup, what runs in this table must share with the newest, beside backbone, checkpoint and frames."""


def row_names(samples: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Name of each (method, fields)."""
    pairs = samples[["method", "fields"]].drop_duplicates()
    return labels(pairs.itertuples(index=False, name=None))


def scored_samples(folder: Path) -> pd.DataFrame:
    """The samples of the runs that belong into one table, each with its run's method, fields and retention_asked.

    Those of the newest run's setup (checkpoint, frames, dtype, ...), and of several runs of one setting those of the
    newest. Seed and meaning of the ratio stand among the fields: each is a row of its own. Raises ResultsError where
    questions have no score.
    """
    results = load(folder)
    runs = results.runs
    runs["setup"] = [_setup(run) for run in runs.to_dict("records")]
    runs["fields"] = [_fields(run) for run in runs.to_dict("records")]
    runs = runs[runs["setup"] == runs.loc[runs["started"].idxmax(), "setup"]]
    newest = runs.groupby(["method", "fields", "retention_asked"])["started"].transform("max")
    chosen = runs.loc[runs["started"] == newest, ["run", "method", "fields", "retention_asked"]]
    samples = results.samples.merge(chosen, on="run")
    if missing := int(samples["score"].isna().sum()):
        raise ResultsError(
            f"{missing} of {len(samples)} samples below {folder} have no score (failed or not scorable); "
            f"look at their `failure` in samples.jsonl"
        )
    return samples


def _setup(run: dict[str, Any]) -> str:
    setup = json.loads(run["setup"])
    return str([*(run[name] for name in ("kind", "backbone", "checkpoint", "frames")), *(setup.get(n) for n in SETUP)])


def _fields(run: dict[str, Any]) -> str:
    fields = {**json.loads(run["fields"]), "budget": run["budget"]}
    if pd.notna(run["seed"]):
        fields["seed"] = int(run["seed"])
    return json.dumps(fields, sort_keys=True)


def summary(folder: Path) -> pd.DataFrame:
    """A row for each method, settings and retention: columns as in COLUMNS, intervals as `Interval`.

    `vs all tokens` is the paired difference to `full` on the same questions. Seeds of one method are rows of their
    own. Raises ResultsError as `scored_samples` does.
    """
    samples = scored_samples(folder)
    full = samples[samples["method"] == "full"].set_index("doc_id")["score"]
    names, rows = row_names(samples), []
    for (method, fields, asked), group in samples.groupby(["method", "fields", "retention_asked"], sort=False):
        paired = group[group["doc_id"].isin(full.index)]
        difference = paired["score"] - full.reindex(paired["doc_id"]).to_numpy()
        rows.append(
            {
                "method": names[method, fields],
                "r asked": asked,
                "r kept": group["retention"].mean(),
                "layer avg": group["layer_average"].mean(),
                "FLOPs": group["flops_ratio"].mean(),
                "accuracy": clustered_mean(group["score"], group["video"], bounds=(0, 1)),
                "vs all tokens": clustered_mean(difference, paired["video"], bounds=(-1, 1)) if len(paired) else None,
                "evidence": group["evidence_recall"].mean(),
                "n": len(group),
                "missed": group["missed"].astype("float64").mean(),
            }
        )
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    first = table["method"].map({"full": 0, "random": 1}).fillna(2)
    return table.assign(_first=first).sort_values(["r asked", "_first", "method"], ascending=[False, True, True])[
        list(COLUMNS)
    ]


def _cell(column: str, value: object) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "-"
    if isinstance(value, Interval):
        sign = "+" if column == "vs all tokens" else ""
        return f"{100 * value.mean:{sign}.1f} [{100 * value.low:{sign}.1f}, {100 * value.high:{sign}.1f}]"
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
    Console(width=max(150, Console().width)).print(out)

"""One table of a results folder: accuracy never without its interval, tokens and cost."""

import json
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from analysis.runs import RunsError, load_samples
from analysis.stats import Interval, clustered_mean

COLUMNS = ("method", "r asked", "r kept", "layer avg", "FLOPs", "accuracy", "vs all tokens", "evidence", "n", "missed")
"""`missed`: share of the samples whose realised budget is another one than asked."""


def labels(samples: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Name of each (method, fields): the method and those of its settings that differ between its rows."""
    names = {}
    for method, group in samples.groupby("method"):
        settings = {text: json.loads(text) for text in group["fields"].unique()}
        varied = {
            key for one in settings.values() for key in one if len({str(s.get(key)) for s in settings.values()}) > 1
        }
        for text, one in settings.items():
            # A hash tells runs apart, not readers: its beginning is enough.
            shown = ", ".join(f"{k}={str(one[k])[:12] if k.endswith('sha256') else one[k]}" for k in one if k in varied)
            names[str(method), text] = f"{method} ({shown})" if shown else str(method)
    return names


def scored_samples(folder: Path) -> pd.DataFrame:
    """The samples of the runs that belong into one table.

    Those of the newest run's setup (checkpoint, frames, dtype, ...), and of several runs of one setting those of the
    newest. Raises RunsError where questions have no score.
    """
    samples = load_samples(folder)
    samples = samples[samples["setup"] == samples.loc[samples["started"].idxmax(), "setup"]]
    newest = samples.groupby(["method", "fields", "retention_asked"])["started"].transform("max")
    samples = samples[samples["started"] == newest].copy()
    if missing := int(samples["score"].isna().sum()):
        raise RunsError(
            f"{missing} of {len(samples)} samples below {folder} have no score (failed or not scorable); "
            f"look at their `failure` in samples.jsonl"
        )
    return samples


def summary(folder: Path) -> pd.DataFrame:
    """A row for each method, settings and retention: columns as in COLUMNS, intervals as `Interval`.

    `vs all tokens` is the paired difference to `full` on the same questions. Seeds of one method are rows of their
    own. Raises RunsError as `scored_samples` does.
    """
    samples = scored_samples(folder)
    full = samples[samples["method"] == "full"].set_index("doc_id")["score"]
    names, rows = labels(samples), []
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
                "accuracy": clustered_mean(group["score"], group["video"]),
                "vs all tokens": clustered_mean(difference, paired["video"]) if len(paired) else None,
                "evidence": group["evidence_recall"].mean(),
                "n": len(group),
                "missed": group["missed"].mean(),
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

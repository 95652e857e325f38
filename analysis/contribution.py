"""The table of a contribution study: which order of tokens follows what tokens contribute."""

from pathlib import Path

import pandas as pd

from analysis.runs import RunsError
from analysis.stats import clustered_mean

COLUMNS = {
    "correlation": "rank correlation with contribution",
    "gain": "gain of the kept set, nats",
    "evidence_recall": "evidence recall",
    "sensitivity": "question sensitivity",
}


def contribution_table(folder: Path) -> str:
    """Markdown: one row a method, means over questions with 95% intervals over whole videos.

    `folder` is what `python -m cacovid contribution -o` wrote. Raises RunsError where it holds no finished video.
    """
    file = folder / "rows.jsonl"
    rows = pd.read_json(file, lines=True) if file.is_file() else pd.DataFrame()
    if "label" not in rows:
        raise RunsError(f"no finished video in {file}; write one with `python -m cacovid contribution ... -o {folder}`")
    rows = rows[rows["label"].notna()]
    lines = ["| order by | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for label, group in rows.groupby("label", sort=False):
        cells = [_cell(group, column) for column in COLUMNS]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(group: pd.DataFrame, column: str) -> str:
    known = group[group[column].notna()] if column in group else group.iloc[:0]
    if known.empty:
        return ""
    interval = clustered_mean(known[column], known["video"])
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"

"""The table of a contribution study: which order of tokens follows what tokens contribute."""

from pathlib import Path

import numpy as np
import pandas as pd

from analysis.results import ResultsError
from analysis.stats import Interval, clustered_mean

COLUMNS = {
    "correlation": "rank correlation with contribution",
    "gain": "gain of the kept set, nats",
    "evidence_recall": "evidence recall",
    "sensitivity": "question sensitivity",
}
_BOUNDS = {"correlation": (-1.0, 1.0), "evidence_recall": (0.0, 1.0), "sensitivity": (0.0, 1.0)}


def contribution_table(folder: Path) -> str:
    """Markdown: one row a method, means over questions with 95% intervals over whole videos.

    Raises ResultsError as `contribution_rows` does.
    """
    lines = ["| order by | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for label, group in contribution_rows(folder).groupby("label", sort=False):
        cells = [_cell(interval_of(group, column)) for column in COLUMNS]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def contribution_rows(folder: Path) -> pd.DataFrame:
    """The rows of a folder that `python -m cacovid contribution -o` wrote: label, video, kind and some of COLUMNS.

    Raises ResultsError where it holds fewer finished videos than an interval needs.
    """
    file = folder / "rows.jsonl"
    rows = pd.read_json(file, lines=True) if file.is_file() else pd.DataFrame(columns=["label", "video"])
    rows = rows[rows["label"].notna()]
    if (videos := rows["video"].nunique()) < 2:
        raise ResultsError(
            f"{videos or 'no'} finished video in {file}, expected two or more; write them with "
            f"`python -m cacovid contribution ... -o {folder}`"
        )
    return rows


def interval_of(rows: pd.DataFrame, column: str) -> Interval | None:
    """Mean of one of COLUMNS with its interval; None where no row has it."""
    if column not in rows or not rows[column].notna().any():
        return None
    known = rows[rows[column].notna()]
    return clustered_mean(known[column], known["video"], bounds=_BOUNDS.get(column, (-np.inf, np.inf)))


def _cell(interval: Interval | None) -> str:
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]" if interval else ""

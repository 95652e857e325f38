"""Peak memory of a figure's rows: measured by the latency protocol, found by what its rows and the runs share."""

import json
import warnings
from typing import Any

import pandas as pd

from analysis.plots.part import Part
from analysis.plots.style import shortened
from analysis.results import ResultsError, ResultsWarning
from analysis.stats.reference import UNCOMPRESSED

SHARED = ("frames", "dtype", "attention")
"""What memory hangs on besides a row's own settings: equal in the runs and in the rows of the protocol."""


def peak_memory(part: Part, table: pd.DataFrame) -> tuple[pd.Series, str]:
    """Bytes for each line of `table` (of `Part.accuracy`), and in words what they were measured on.

    A line is found by its label, retention and budget, as both sweeps name them; of two measurements the later one
    counts. Lines without one are missing, with a ResultsWarning. Raises ResultsError without any rows, for rows of
    several backbones or machines, and where none was measured as the runs were.
    """
    rows = _of_part(part)
    known = {_setting(row): row.peak_memory for row in rows.itertuples()}
    found = pd.Series([known.get(_setting(line)) for line in table.itertuples()], table.index, dtype=float)
    lacking = table[found.isna()].groupby("label", sort=False)["retention_asked"].agg(_some)
    if len(lacking):
        words = "; ".join(f"{label} at {ratios}" for label, ratios in lacking.items())
        warnings.warn(
            f"the latency rows have no peak memory of {words}: not drawn against it; rows are found by the label that "
            f"both sweeps give them",
            ResultsWarning,
            stacklevel=2,
        )
    first = rows.iloc[0]
    return found, f"{first['backbone']} on {shortened(first['hardware'], 40)}"


def _setting(row: Any) -> tuple[Any, ...]:
    """What a row goes by; the uncompressed model by nothing else, as it has no setting."""
    return (UNCOMPRESSED,) if row.method == UNCOMPRESSED else (row.method, row.label, row.retention_asked, row.budget)


def _of_part(part: Part) -> pd.DataFrame:
    """The rows that were measured on the part's backbone as its runs were; at least one."""
    if part.memory is None:
        raise ResultsError(
            f"runs of {part.title} hold no peak memory; measure it with `python -m sweeps latency` and give that "
            f"folder with --latency"
        )
    rows = part.memory[part.memory["family"] == part.backbone]
    if rows.empty:
        raise ResultsError(
            f"the latency rows are of {', '.join(sorted(set(part.memory['family'])))}, expected {part.backbone}"
        )
    if len(names := sorted(set(rows["backbone"]))) > 1:
        raise ResultsError(
            f"the latency rows are of {' and '.join(names)}, expected one {part.backbone}; name it: "
            f"--latency {names[0]}=FOLDER"
        )
    runs = part.results.runs
    setups = [json.loads(text) for text in runs["setup"]]
    for name in SHARED:
        told = set(runs["frames"].dropna()) if name == "frames" else {s[name] for s in setups if s.get(name)}
        if told and rows[rows[name].isin(told)].empty:
            raise ResultsError(
                f"the latency rows were measured with {name} {_some(rows[name])}, the runs of {part.title} with "
                f"{_some(told)}; measure it as the runs were"
            )
        rows = rows[rows[name].isin(told)] if told else rows
    if len(machines := sorted(set(rows["hardware"]))) > 1:
        raise ResultsError(f"the latency rows are of {' and '.join(machines)}, expected one machine")
    return rows


def _some(values: "pd.Series | set[object]") -> str:
    return ", ".join(sorted({f"{value:g}" if isinstance(value, float) else str(value) for value in values}))

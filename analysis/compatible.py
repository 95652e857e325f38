"""Which runs may stand in one column: those that differ in method and retention alone."""

import json
from collections.abc import Collection
from typing import Any

import pandas as pd

from analysis.results import ResultsError

COLUMNS = ("frames", "checkpoint")
"""Columns of `Results.runs` that must be equal, beside all that `setup` holds."""


def check_compatible(runs: pd.DataFrame, allow: Collection[str] = (), also: Collection[str] = ()) -> None:
    """Raise ResultsError where runs of one backbone and task differ in what they must share, naming it.

    `allow` lists what may differ: `frames`, `checkpoint` or a name in `setup` (`dtype`, `attention`, `task_sha256`:
    prompt and scoring, ...); `versions` stands for every package's. `also` lists further columns that must be
    equal. What is missing in one of two runs (lmms-eval does not write its dtype) is no difference; published rows
    are never compared.
    """
    measured = runs[runs["kind"] != "published"]
    checked = {name for text in measured["setup"] for name in _flat(json.loads(text))} | {*COLUMNS, *also}
    known = checked | {name.partition(".")[0] for name in checked}
    if unknown := sorted(set(allow) - known):
        raise ResultsError(
            f"--allow {','.join(unknown)}: no such setting in these runs; known: {', '.join(sorted(known))}"
        )
    columns = (*COLUMNS, *also)
    for (backbone, task), group in measured.groupby(["backbone", "task"]):
        if words := _differences(group, columns, set(allow)):
            raise ResultsError(
                f"runs of {task} on {backbone} do not belong into one column: {'; '.join(words)}; give the runs of one "
                f"setting alone, or let it differ with --allow {','.join(sorted({w.split(' ')[0] for w in words}))}"
            )


def _differences(group: pd.DataFrame, columns: Collection[str], allow: set[str]) -> list[str]:
    """One text for each setting that has two values: the setting, both values, and a run of each."""
    first: dict[str, tuple[Any, str]] = {}
    found: dict[str, str] = {}
    for row in group.sort_values("run").to_dict("records"):
        values = {name: row[name] for name in columns} | _flat(json.loads(row["setup"]))
        who = f"run {row['run']} ({row['label']}, {row['source']})"
        for name, value in values.items():
            if pd.isna(value) or {name, name.partition(".")[0]} & allow:
                continue
            other, whose = first.setdefault(name, (value, who))
            if other != value:
                found.setdefault(name, f"{name} is {_short(other)} in {whose} and {_short(value)} in {who}")
    return list(found.values())


def _flat(setup: dict[str, Any]) -> dict[str, Any]:
    """Settings as plain values, a version under `versions.<package>`, lists as JSON text."""
    out: dict[str, Any] = {}
    for name, value in setup.items():
        if isinstance(value, dict):
            out |= {f"{name}.{key}": one for key, one in value.items()}
        else:
            out[name] = json.dumps(value, sort_keys=True) if isinstance(value, list) else value
    return out


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."

"""Rows of the latency protocol (`python -m sweeps latency`) as the cells that the efficiency table takes."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.results import ResultsError

FILE, BLOCKS = "latency.jsonl", "env.jsonl"

NAMES = {"llava_ov_7b": "llava_onevision_7b", "qwen2_5_vl_3b": "qwen2_5_vl_3b"}
"""Backbones of `sweeps/conf` -> the paper's."""


def is_latency(folder: Path) -> bool:
    """Whether `python -m sweeps latency` wrote there."""
    return (folder / FILE).is_file()


def latency_cells(folder: Path) -> pd.DataFrame:
    """One row a method and ratio of the paper's backbones, batch 1 and nominal budgets; a later measurement wins.

    Columns as `analysis.measured.cells` where the table reads them; seconds are medians over the protocol's repeats.
    Raises ResultsError where nothing fits, or where rows of one backbone are of several machines.
    """
    machines = {block["block"]: block["device_name"] for block in _lines(folder / BLOCKS)}
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in _lines(folder / FILE):
        if (row["status"], row["batch"], row["budget"]) != ("measured", 1, "nominal") or row["backbone"] not in NAMES:
            continue
        cell = {
            "backbone": NAMES[row["backbone"]],
            "method": row["method"],
            "label": row["label"],
            "retention_asked": row["retention"],
            "task": "videomme",
            "setup": json.dumps({"batch_size": 1}),
            "hardware": machines.get(row["block"]),
            "runs": (row["key"],),
            "accuracy": None,
            **{f"seconds_{stage}": row["seconds"][stage]["p50"] for stage in ("compress", "prefill")},
        }
        found[cell["backbone"], cell["label"], cell["retention_asked"]] = cell
    if not found:
        raise ResultsError(
            f"{folder} has no row at batch 1 of {', '.join(NAMES)}, nominal budget; measure them: "
            f"python -m sweeps latency backbone=llava_ov_7b weights=random method=all"
        )
    table = pd.DataFrame(list(found.values()))
    for backbone, group in table.groupby("backbone"):
        if len(others := sorted(set(group["hardware"].dropna()))) > 1:
            raise ResultsError(f"{folder}: times of {backbone} are of {' and '.join(others)}; expected one machine")
    return table


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a journal; one that a crash cut off at the end is left out."""
    if not path.is_file():
        raise ResultsError(f"{path} is not there; expected a folder that `python -m sweeps latency` wrote")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]

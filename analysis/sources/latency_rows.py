"""Rows of the latency protocol (`python -m sweeps latency`): cells of the efficiency table, and peak memory."""

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


MEMORY_COLUMNS = {
    "family": "of the backbone, as runs name it: llava_ov",
    "backbone": "name in sweeps/conf: llava_ov_7b",
    "method": "registered name",
    "label": "of the sweep's row, without its seed",
    "retention_asked": "share of video tokens kept, 0..1",
    "budget": "nominal, layer_average or flops",
    "frames": "frames a video",
    "dtype": "of the weights",
    "attention": "attention backend",
    "hardware": "name of the device",
    "peak_memory": "bytes above what was in use before, the weights among it",
}
"""Columns of `memory_rows`."""

ALLOCATED = "torch.cuda.max_memory_allocated"
"""How memory is told exactly; a CPU's resident set hardly rises where the allocator uses pages again."""


def memory_rows(folder: Path) -> pd.DataFrame:
    """Rows at batch 1 whose peak memory an accelerator told, with MEMORY_COLUMNS, in the order of measurement.

    Raises ResultsError where there are none, and where a file is missing.
    """
    blocks = {block["block"]: block for block in _lines(folder / BLOCKS)}
    found = []
    for row in _lines(folder / FILE):
        if (row["status"], row["batch"], row["memory"]["how"]) != ("measured", 1, ALLOCATED):
            continue
        block = blocks[row["block"]]
        found.append(
            {
                **{name: row[name] for name in ("backbone", "method", "budget", "frames")},
                **{name: block[name] for name in ("family", "dtype", "attention")},
                "label": row["label"].removesuffix(f" (seed {row['fields'].get('seed')})"),
                "retention_asked": row["retention"],
                "hardware": block["device_name"],
                "peak_memory": float(row["memory"]["above_weights_bytes"]),
            }
        )
    if not found:
        raise ResultsError(
            f"{folder} has no row at batch 1 whose peak memory an accelerator told (a CPU's says little); measure it "
            f"with end_to_end=true: python -m sweeps latency backbone=llava_ov_7b weights=random method=all device=cuda"
        )
    return pd.DataFrame(found, columns=list(MEMORY_COLUMNS))


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a journal; one that a crash cut off at the end is left out."""
    if not path.is_file():
        raise ResultsError(f"{path} is not there; expected a folder that `python -m sweeps latency` wrote")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]

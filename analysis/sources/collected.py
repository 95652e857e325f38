"""The Parquet that `python -m sweeps collect` writes: runs.parquet and samples.parquet."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from analysis.results import Results, ResultsError, ResultsWarning
from analysis.sources.frames import run_frame, sample_frame, typed
from analysis.sources.run_folders import SCHEMA, run_row
from analysis.tasks import sample_row, sample_score, task_of

_RENAMED = {
    "doc_sha256": "document",
    "video_sha256": "video",
    "failure_reason": "failure",
    "spent_video_tokens": "video_tokens",
    "spent_retention": "retention",
    "spent_entering": "entering",
    "spent_layer_average": "layer_average",
    "spent_decode_visible": "decode_share",
    "spent_flops_ratio": "flops_ratio",
    "spent_missed": "missed",
}
_SAME = ("run", "task", "doc_id", "score", "prediction", "target", "parsed", "output_tokens", "evidence_recall")
_FLOPS = [f"spent_flops_{part}" for part in ("vision", "compressor", "prefill", "decode")]


def is_collected(path: Path) -> bool:
    """Whether `path` is a folder with collected runs and samples."""
    return (path / "runs.parquet").is_file() and (path / "samples.parquet").is_file()


def read_collected(path: Path) -> Results:
    """The finished runs with their samples; partial ones are left out with a ResultsWarning.

    Raises ResultsError for damaged files and for runs of another schema.
    """
    try:
        rows = pq.read_table(path / "runs.parquet").to_pylist()
        samples = _samples(path / "samples.parquet")
    except (pa.ArrowException, KeyError) as error:
        raise ResultsError(
            f"{path}: its Parquet is damaged or of another version ({error}); collect it again"
        ) from error
    if other := sorted({row["schema"] for row in rows} - {SCHEMA}):
        raise ResultsError(f"{path}: runs of schema {other}, expected {SCHEMA}: another version collected them")
    if partial := [row["run"] for row in rows if row["state"] != "done"]:
        warnings.warn(
            f"{path}: {len(partial)} partial runs are left out: {', '.join(partial)}", ResultsWarning, stacklevel=2
        )
    runs = run_frame(_run(row) for row in rows if row["state"] == "done")
    return Results(runs, samples if not partial else samples[samples["run"].isin(runs["run"])])


def _run(row: dict[str, Any]) -> dict[str, Any]:
    settings = row | {name: json.loads(row[name]) for name in ("fields", "checkpoint", "generation", "versions")}
    run = {"id": row["run"], "settings": settings, "attempts": [], "started": row["started"], "counts": row}
    commit = f"{row['commit']}{'+' * row['dirty']}" if row["commit"] else None
    return run_row(run, Path(row["folders"][0])) | {
        "label": row["label"],
        "hardware": row["hardware"],
        "commit": commit,
    }


def _samples(path: Path) -> pd.DataFrame:
    file = pq.ParquetFile(path)
    stages = sorted(name for name in file.schema_arrow.names if name.startswith("seconds_"))
    table = file.read([*_SAME, *_RENAMED, *_FLOPS, "metrics", *stages])
    metrics, flops = table["metrics"], [table[name] for name in _FLOPS]
    total = flops[0]
    for part in flops[1:]:
        total = pc.add(total, part)
    table = table.drop_columns([*_FLOPS, "metrics"]).append_column("flops", total)
    frame = table.rename_columns([_RENAMED.get(name, name) for name in table.column_names]).to_pandas()
    for share in ("entering", "decode_share"):
        frame[share] = frame[share] / frame["video_tokens"]
    frame["video"] = frame["video"].fillna(frame["document"])
    frame["category"] = _categories(frame, metrics)
    derived = (frame["score"].isna() & frame["failure"].isna()).to_numpy()
    found = [
        sample_score(task_of(task), _parsed(text))
        for task, text in zip(frame.loc[derived, "task"], metrics.filter(pa.array(derived)).to_pylist(), strict=True)
    ]
    frame.loc[derived, "score"] = np.array(found, dtype=float)  # None, where nothing tells it, is NaN
    return typed(frame.reindex(columns=[*(c for c in sample_frame([]).columns), *stages]))


def _categories(frame: pd.DataFrame, metrics: pa.ChunkedArray) -> pd.Series:
    """Of every sample: a document's category is the same in all runs, so one of them is read."""
    told = frame.loc[metrics.is_valid().to_pandas().to_numpy(), ["task", "document"]].drop_duplicates()
    texts = metrics.take(pa.array(told.index)).to_pylist()
    told["category"] = [
        sample_row(task_of(name), _parsed(text)).get(task_of(name).category or "")
        for name, text in zip(told["task"], texts, strict=True)
    ]
    return frame[["task", "document"]].merge(told, how="left", on=["task", "document"])["category"]


def _parsed(text: str | None) -> dict[str, Any] | None:
    return None if text is None else json.loads(text)

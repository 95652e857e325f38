"""Run directories into one tidy table: a row a sample, with its run's method, fields and retention."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

SETUP = ("backbone", "checkpoint", "dtype", "attention", "frames", "sampling", "form", "generation")
"""Settings that runs in one table must share: everything but method, retention, task and code."""


class RunsError(ValueError):
    """A results folder that holds nothing to show, or a run of another format."""


def load_runs(folder: Path) -> list[dict[str, Any]]:
    """The `run.json` of every finished run below `folder`, each with its `folder`.

    Runs that are not done are left out: a part of the questions has another mean. Raises RunsError if none is done.
    """
    runs = []
    for path in sorted(folder.glob("**/run.json")):
        run = json.loads(path.read_text())
        if run["state"] == "done":
            runs.append({**run, "folder": path.parent})
    if not runs:
        raise RunsError(f"no finished run below {folder}: expected */run.json with state done; run an evaluation first")
    return runs


def load_samples(folder: Path) -> pd.DataFrame:
    """One row a sample of every finished run below `folder`.

    Columns: run, started, setup and fields (JSON text), method, retention_asked, task, doc_id, video, score (0..1),
    failed, parsed, retention, missed, layer_average, decode_share, flops_ratio, evidence_recall, and `seconds_<stage>`.
    """
    rows = []
    for run in load_runs(folder):
        settings = run["settings"]
        fields = dict(settings["fields"])
        asked = fields.pop("retention")
        fields["budget"] = settings.get("budget", "nominal")  # what that retention means
        for line in (run["folder"] / "samples.jsonl").read_text().splitlines():
            sample = json.loads(line)
            spent = sample["spent"] or {}
            video = sample["video"] or {}
            rows.append(
                {
                    "run": run["id"],
                    "started": run["started"],
                    "setup": json.dumps({key: settings.get(key) for key in SETUP}, sort_keys=True),
                    "method": settings["method"],
                    "fields": json.dumps(fields, sort_keys=True),
                    "retention_asked": asked,
                    "task": sample["task"],
                    "doc_id": sample["doc_id"],
                    "video": video.get("sha256"),
                    "score": sample["score"],
                    "failed": sample["failure"] is not None,
                    "parsed": sample["parsed"],
                    "retention": spent.get("retention"),
                    "missed": spent.get("missed", False),
                    "layer_average": spent.get("layer_average"),
                    "decode_share": spent["decode_visible"] / spent["video_tokens"] if spent else None,
                    "flops_ratio": spent.get("flops_ratio"),
                    "evidence_recall": sample["evidence_recall"],
                    **{f"seconds_{stage}": s for stage, s in sample["seconds"].items()},
                }
            )
    return pd.DataFrame(rows)

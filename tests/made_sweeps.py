"""Sweeps' folders and run directories as jobs leave them, with rows of the real layout and made-up numbers."""

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cacovid.budget import Flops, Spent
from cacovid.runs import Failure, RunSettings, Sample
from cacovid.runs.run import spans
from sweeps.folder import SCHEMA, Folder

START = datetime(2026, 1, 1, tzinfo=UTC)
FRAMES, PATCHES, LAYERS = 32, 196, 28  # LLaVA-OneVision 7B
PROVENANCE = {
    "git": {"commit": "c" * 40, "dirty": False},
    "python": "3.11.7",
    "hardware": {"machine": "x86_64", "cpu": "A CPU", "cores": 8, "memory_bytes": 2**34},
    "threads": 1,
}
SETTINGS = RunSettings(
    method="random",
    fields={"retention": 0.25, "seed": 0},
    budget="nominal",
    backbone="llava_ov",
    checkpoint={"hub": "owner/weights", "commit": "d" * 40},
    dtype="bfloat16",
    attention="sdpa",
    device="cuda",
    frames=FRAMES,
    sampling="round",
    form="chat",
    batch_size=1,
    task="made_up",
    task_sha256="7" * 64,
    generation=[{"max_new_tokens": 16, "until": ["\n\n"]}],
    source="5" * 64,
    versions={"torch": "2"},
)


def made_settings(number: int = 0, **changes: Any) -> RunSettings:
    """Settings of a run of its own for every number."""
    return replace(SETTINGS, **{"fields": {"retention": 0.25, "seed": number}, **changes})


def made_sample(document: int, retention: float = 0.25, **changes: Any) -> dict[str, Any]:
    """A row of samples.jsonl of full size."""
    tokens = FRAMES * PATCHES
    kept = round(retention * tokens)
    full = Flops(vision=10**13, compressor=0, prefill=10**14, decode=10**11)
    spent = Spent(
        video_tokens=tokens,
        asked=kept,
        measure="kept",
        slack=0,
        lenient=False,
        layers=(kept,) * LAYERS,
        kept=kept,
        decode_visible=float(kept),
        equivalent=float(kept),
        flops=Flops(vision=10**13, compressor=10**9, prefill=3 * 10**13, decode=10**10),
        flops_full=full,
    )
    answer = {"score": 1.0, "parsed": 1, "prediction": "B", "answer": "B", "kind": "color", "video_id": "v"}
    sample = Sample(
        task="made_up",
        doc_id=document,
        doc_sha256=f"{document:064x}",
        prompt_sha256=f"{document + 1:064x}",
        modality="video",
        compressed=True,
        video={
            "path": f"/videos/{document // 3:06d}.mp4",
            "sha256": f"{document // 3:064x}",
            "bytes": 36051,
            "mtime_ns": 1795613759728257948,
            "indices": list(range(0, 100 * FRAMES, 100)),
            "total_frames": 100 * FRAMES,
            "fps": 30.0,
            "decoder": "decord",
        },
        prediction="B",
        target="B",
        score=float(document % 2),
        parsed=True,
        metrics={"accuracy": answer, "parsed": answer},
        input_tokens=kept + 120,
        output_tokens=5,
        spent=spent.to_json(),
        seconds={"read": 0.61, "vision": 0.19, "compress": 0.0005, "prefill": 0.036, "decode": 0.049},
        kept=[round(i * (tokens - 1) / max(1, kept - 1)) for i in range(kept)],
        evidence_recall=0.4,
        written=seconds_after(document),
    )
    return replace(sample, **changes).to_json()


def failed_sample(document: int, reason: str = "truncated", kind: str = "VideoError") -> dict[str, Any]:
    """A row without an answer."""
    failure = Failure(kind=kind, reason=reason, message="no answer")
    nothing = dict.fromkeys(("prediction", "score", "parsed", "spent", "kept", "evidence_recall", "output_tokens"))
    return made_sample(document, 0.01, failure=failure, seconds={}, **nothing)


def seconds_after(seconds: float, start: datetime = START) -> str:
    """A time as records have it."""
    return (start + timedelta(seconds=seconds)).isoformat(timespec="seconds")


def write_run(
    results: Path,
    settings: RunSettings,
    rows: Iterable[dict[str, Any]],
    *,
    asked: Iterable[int] | None = None,
    state: str = "done",
    started: str = seconds_after(0),
    **changes: Any,
) -> Path:
    """A run directory in `results`; it was asked for the documents of its rows unless told otherwise."""
    folder, rows = results / settings.id, list(rows)
    folder.mkdir(parents=True)
    numbers = sorted({row["doc_id"] for row in rows} if asked is None else asked)
    failed = sum(row["failure"] is not None for row in rows)
    counts = {"documents": len(numbers), "asked": len(numbers), "answered": len(rows) - failed, "failed": failed}
    attempt = {"started": started, "ended": seconds_after(100) if state == "done" else None, "computed": len(rows)}
    run = {
        "schema": 1,
        "id": settings.id,
        "state": state,
        "error": None,
        "counts": {**counts, "missing": len(numbers) - len(rows)},
        "started": started,
        "ended": attempt["ended"],
        "settings": asdict(settings),
        "asked": spans(numbers),
        "attempts": [{**attempt, "taken": 0, "failed": failed, "provenance": PROVENANCE}],
        "model_id": "random_llava_ov",
        "arguments": {"pretrained": "owner/weights"},
        **changes,
    }
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def made_cell(number: int, label: str = "random", retention: float = 0.25, **changes: Any) -> dict[str, Any]:
    """A cell as in sweep.json."""
    return {
        "id": f"{number:016x}",
        "label": label,
        "backbone": {
            "family": "llava_ov",
            "pretrained": "owner/weights",
            "revision": None,
            "device": "auto",
            "dtype": "auto",
            "attn_implementation": "sdpa",
            "sizes": None,
        },
        "task": {
            "name": "made_up",
            "include_path": None,
            "limit": None,
            "environment": {},
            "documents": None,
            "videos": None,
        },
        "method": "random",
        "arguments": {"sampling": "round", "retention": retention, "budget": "nominal", "seed": number},
        "seed": None,
        **changes,
    }


def write_sweep(path: Path, cells: list[dict[str, Any]], grid: list[str] | None = None, **changes: Any) -> Folder:
    """A sweep's folder with no event; `grid` are the ids of the last call, all unless told otherwise."""
    folder = Folder(path)
    (path / "events").mkdir(parents=True)
    last = [cell["id"] for cell in cells] if grid is None else grid
    sweep = {"schema": SCHEMA, "config": {}, "cells": cells, "grid": last, **changes}
    folder.sweep.write_text(json.dumps(sweep))
    return folder


def write_job(folder: Folder, job: str, cells: list[dict[str, Any]], shard: tuple[int, int] = (0, 1)) -> None:
    """jobs/<job>.json for stretch `shard[0]` (0-based) of `shard[1]`."""
    folder.job(job).parent.mkdir(exist_ok=True)
    row = {"id": job, "cells": cells, "shard": {"number": shard[0], "of": shard[1]}, "store": {}, "executor": {}}
    folder.job(job).write_text(json.dumps(row))


def made_event(kind: str, cell: str, shard: str = "1-of-1", at: datetime = START, **more: Any) -> dict[str, Any]:
    """One line of a worker's events."""
    own: dict[str, dict[str, Any]] = {
        "start": {"host": "node", "pid": 7},
        "done": {
            "runs": [f"runs/{cell}" if shard == "1-of-1" else f"runs/{shard}/{cell}"],
            "counts": {"documents": 10, "asked": 10, "answered": 10, "failed": 0, "missing": 0},
            "reasons": {},
            "scores": {"accuracy": 0.5},
            "seconds": 10.0,
        },
        "failed": {"error": "ValueError: it broke", "trace": "Traceback ...\nValueError: it broke"},
        "retry": {},
    }
    time = at.isoformat(timespec="microseconds")
    return {"event": kind, "cell": cell, "shard": shard, "time": time, **own[kind], **more}


def write_events(folder: Folder, job: str, events: Iterable[dict[str, Any]], worker: int = 0) -> None:
    """Append to a worker's events."""
    with open(folder.events(job, worker), "a") as file:
        file.write("".join(json.dumps(event) + "\n" for event in events))


def fake_squeue(folder: Path, script: str) -> Path:
    """A program `squeue` in `folder` that is this shell script; the folder, to be put on PATH."""
    folder.mkdir(exist_ok=True)
    (folder / "squeue").write_text(f"#!/bin/sh\n{script}")
    (folder / "squeue").chmod(0o755)
    return folder

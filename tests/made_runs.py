"""Run directories as an evaluation leaves them, with given scores."""

import json
from pathlib import Path
from typing import Any

SETUP: dict[str, Any] = {
    "budget": "nominal",
    "backbone": "llava_ov",
    "dtype": "float32",
    "attention": "sdpa",
    "device": "cpu",
    "frames": 16,
    "sampling": "round",
    "form": "chat",
    "batch_size": 1,
    "task": "t",
    "task_sha256": "p",
    "generation": [],
    "source": "s",
    "versions": {"torch": "2"},
}
"""Settings of a run, but for method, fields and checkpoint."""


def write_run(
    root: Path,
    name: str,
    method: str,
    scores: list[float | None],
    *,
    started: str = "2026-01-01",
    categories: list[str] | None = None,
    state: str = "done",
    schema: int = 1,
    retention: float = 1.0,
    layer_average: float | None = None,
    checkpoint: str = "c",
    hub: str | None = None,
    setup: dict[str, Any] | None = None,
    documents: range | None = None,
    metrics: list[dict[str, Any]] | None = None,
    answers: list[tuple[str, str]] | None = None,
    **fields: object,
) -> Path:
    """Write run.json and samples.jsonl to root/name, two questions a video, and return that folder.

    Args:
        scores: None = a failed sample; with `metrics`, one without a score.
        categories: Video-MME's duration class of each sample, among its metrics.
        hub: hub id of the checkpoint, instead of the hash `checkpoint` of a folder.
        setup: what differs from SETUP.
        documents: numbers of the documents, from 0 by default.
        metrics: what the task's scorer returned, sample by sample.
        answers: prediction and target of each sample, instead of "A" and "A".
        fields: of the method.
    """
    numbers = documents or range(len(scores))
    settings = {
        **SETUP,
        **(setup or {}),
        "method": method,
        "checkpoint": {"hub": hub, "commit": "1"} if hub else {"folder": checkpoint},
        "fields": {"retention": retention, **fields},
    }
    run = {
        "schema": schema,
        "id": name,
        "state": state,
        "started": started,
        "ended": started,
        "settings": settings,
        "counts": {"documents": len(scores)},
        "asked": [[numbers[0], numbers[-1]]],
        "attempts": [{"started": started, "provenance": {"git": None, "hardware": {"cpu": "a processor"}}}],
    }
    share = retention if layer_average is None else layer_average
    spent = {
        "retention": retention,
        "entering": 16.0 * retention,
        "layer_average": share,
        "flops_ratio": share,
        "decode_visible": 8.0,
        "video_tokens": 16,
        "missed": False,
        "flops": {"vision": 1, "compressor": 1, "prefill": 1, "decode": 1},
    }
    if categories:
        rows = zip(categories, scores, strict=True)
        metrics = [{"videomme_perception_score": {"duration": duration, "score": score}} for duration, score in rows]
    lines = [
        {
            "task": settings["task"],
            "doc_id": number,
            "doc_sha256": f"d{number}",
            "prompt_sha256": f"p{number}",
            "modality": "video",
            "compressed": True,
            "video": {"sha256": f"v{number // 2}"},
            "prediction": "A" if score is not None or metrics else None,
            "target": "A",
            "score": score,
            "metrics": metrics[i] if metrics else None,
            "failure": None if score is not None or metrics else {"reason": "truncated"},
            "parsed": True,
            "input_tokens": 30,
            "output_tokens": 3,
            "kept": None,
            "spent": spent,
            "seconds": {"compress": 0.01, "prefill": 0.1},
            "evidence_recall": 0.5,
            "written": started,
        }
        for i, (number, score) in enumerate(zip(numbers, scores, strict=True))
    ]
    for line, (prediction, target) in zip(lines, answers or (), strict=False):
        line |= {"prediction": prediction, "target": target}
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder

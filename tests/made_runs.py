"""Run directories as an evaluation leaves them, with given scores."""

import json
from pathlib import Path


def write_run(
    root: Path, name: str, method: str, scores: list[float | None], *, started: str = "2026-01-01", **settings: object
) -> None:
    state = settings.pop("state", "done")
    retention = settings.pop("retention", 1.0)
    checkpoint = settings.pop("checkpoint", "c")
    folder = root / name
    folder.mkdir(parents=True)
    run = {
        "id": name,
        "state": state,
        "started": started,
        "settings": {"method": method, "checkpoint": checkpoint, "fields": {"retention": retention, **settings}},
    }
    (folder / "run.json").write_text(json.dumps(run))
    spent = {
        "retention": retention,
        "layer_average": retention,
        "flops_ratio": retention,
        "decode_visible": 8.0,
        "video_tokens": 16,
    }
    lines = [
        {
            "task": "t",
            "doc_id": i,
            "video": {"sha256": f"v{i // 2}"},
            "score": score,
            "failure": None if score is not None else {"reason": "truncated"},
            "parsed": True,
            "spent": spent,
            "seconds": {"prefill": 0.1},
            "evidence_recall": 0.5,
        }
        for i, score in enumerate(scores)
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

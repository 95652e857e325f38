"""A run's settings and samples to write."""

from typing import Any

from cacovid.runs import Failure, RunSettings, Sample

SETTINGS = RunSettings(
    method="random",
    fields={"retention": 0.25, "seed": 0},
    budget="nominal",
    backbone="llava_ov",
    checkpoint={"folder": "abc"},
    dtype="float32",
    attention="sdpa",
    device="cpu",
    frames=4,
    sampling="round",
    form="chat",
    batch_size=1,
    task="small",
    task_sha256="t",
    generation=[{"max_new_tokens": 4, "until": []}],
    source="s",
    versions={"torch": "2"},
)
BROKEN = Failure(kind="VideoError", reason="truncated", message="cut off")


def sample(doc_id: int, **fields: Any) -> Sample:
    return Sample(
        **{
            "task": "small",
            "doc_id": doc_id,
            "doc_sha256": "d",
            "prompt_sha256": "p",
            "modality": "video",
            "prediction": "A",
            "score": 1.0,
            **fields,
        }
    )

"""One line of samples.jsonl: what was asked, what came back, what it cost."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Modality = Literal["video", "image", "text"]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a sample has no answer."""

    kind: str  # VideoError, PromptError, BudgetError
    reason: str  # stable word, fit for a table, e.g. "truncated"
    message: str


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One question. `None` means "not known" or "does not apply"; it is never written as 0."""

    task: str
    doc_id: int
    doc_sha256: str  # of the document; lmms-eval's own `doc_hash` is a constant
    prompt_sha256: str | None  # of the chat-templated prompt
    modality: Modality | None
    compressed: bool = False  # False: images and text go through the stock model's own generate
    video: dict[str, Any] | None = None  # path, sha256, bytes, mtime_ns, frame indices, decoder
    prediction: str | None = None  # None = failed; the empty answer of a model is ""
    failure: Failure | None = None
    target: Any = None
    score: float | None = None
    parsed: bool | None = None  # False: the scorer found no answer in the prediction
    metrics: dict[str, Any] | None = None  # what the task's process_results returned
    input_tokens: int | None = None  # rows that entered the LLM
    output_tokens: int | None = None
    spent: dict[str, Any] | None = None  # the budget audit, `Spent.to_json`
    seconds: dict[str, float] = field(default_factory=dict)  # stage -> seconds; a batch's stages count whole
    question: str | None = None  # the task's text, before the chat template
    grid: list[int] | None = None  # frames, rows and columns of the video tokens; flat positions count in this order
    kept: list[int] | None = None  # flat positions of the video tokens left after the last cut
    merged: str | None = None  # base64 bitset of those that went into a kept one; None where there are none
    evidence: list[int] | None = None  # flat positions of the document's evidence cells
    evidence_recall: float | None = None  # share of the document's evidence cells among `kept`
    written: str = ""  # UTC time

    def to_json(self) -> dict[str, Any]:
        """Plain data. NaN and infinity become null."""
        return finite(asdict(self))

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Sample":
        """Inverse of `to_json`. Raises TypeError for missing or unknown keys."""
        failure = row["failure"]
        return cls(**{**row, "failure": Failure(**failure) if failure else None})


def finite(value: Any) -> Any:
    """The same plain data with NaN and infinity as None; what JSON cannot hold becomes its text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if hasattr(value, "item") and getattr(value, "size", None) == 1:  # a numpy or torch scalar
        return finite(value.item())
    return value if isinstance(value, str | int | bool | None) else str(value)

"""The functions that the YAML files of this folder name."""

import os
import re
from functools import partial
from typing import Any

from datasets import Dataset

from cacovid.lmms.arguments import ArgumentError
from cacovid.lmms.command import exit_status
from cacovid.testbed.data import load_split
from cacovid.testbed.render import REACH, moment_frames
from cacovid.testbed.scene import GRID
from cacovid.testbed.words import KINDS

LIMIT_VARIABLE = "CACOVID_TESTBED_VIDEOS"
"""Environment variable: only the first so many videos are made and asked about."""

_LETTER = (
    re.compile(r"\W*([A-D])\W*"),  # "B", "(B)", "B."
    re.compile(r"\W*([A-D])[.):]\s.*", re.DOTALL),  # "B. red"
)
_PHRASE = re.compile(r"\b(?i:answer|option|choice)\b(?:\s+is)?\s*:?\s*\(?([A-D])\b")  # "the answer is B"


def documents(_placeholder: Dataset, split: str, kind: str | None = None) -> Dataset:
    """A split's documents, of one kind or all; missing videos are made.

    Each says where its evidence cells lie: `evidence_frames`, the frames of the file that they count, with the
    `evidence_reach` of frames around those that show the same, and `evidence_patches` a frame.
    """
    with exit_status():
        rows = load_split(split, _limit())
    place = {"evidence_frames": moment_frames(), "evidence_reach": REACH, "evidence_patches": GRID * GRID}
    return Dataset.from_list([{**row, **place} for row in rows if kind in (None, row["kind"])])


def _limit() -> int | None:
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentError(f"{LIMIT_VARIABLE}={text!r}, expected a number of videos, at least 1, or nothing for all")
    return int(text)


test = partial(documents, split="test")
validation = partial(documents, split="validation")
for _kind in KINDS:
    globals()[f"test_{_kind}"] = partial(documents, split="test", kind=_kind)


def video(doc: dict[str, Any]) -> list[str]:
    """The document's video file."""
    return [doc["video"]]


def letter(text: str) -> str | None:
    """The letter that an answer names, None if it names none or two: never a guess.

    >>> letter("B"), letter("(C)"), letter("B. red"), letter("The answer is D."), letter("A red ball"), letter("")
    ('B', 'C', 'B', 'D', None, None)
    """
    text = text.strip()
    for pattern in _LETTER:
        if match := pattern.fullmatch(text):
            return match[1]
    named = set(_PHRASE.findall(text))
    return named.pop() if len(named) == 1 else None


def score(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
    """Accuracy and parsed rate of one document; an answer that names no option is wrong, and not parsed."""
    found = letter(results[0])
    row = {
        "score": float(found == doc["answer"]),
        "parsed": int(found is not None),
        "prediction": found,
        "answer": doc["answer"],
        "kind": doc["kind"],
        "question_id": doc["question_id"],
        "video_id": doc["video_id"],
    }
    return {"accuracy": row, "parsed": {**row, "score": float(row["parsed"])}, f"accuracy_{doc['kind']}": row}


def mean_score(rows: list[dict[str, Any]]) -> float:
    """Share of right answers, 0 to 1; lmms-eval's standard errors are in the same unit."""
    return sum(row["score"] for row in rows) / len(rows)

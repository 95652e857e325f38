"""What the policy is trained on: a video, a question and its solution, from the Video-R1 layout or the test bed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cacovid.training.rewards import REWARDS, answer_of

INSTRUCTIONS: Final = {
    "multiple choice": "Please provide only the single option letter (e.g., A, B, C, D, etc.).",
    "numerical": "Please provide the numerical value (e.g., 42 or 3.14).",
    "OCR": "Please transcribe text from the image/video clearly and provide your text answer.",
    "free-form": "Please provide your text answer.",
    "regression": "Please provide the numerical value (e.g., 42 or 3.14).",
}
"""Problem type -> what the release asks for behind the question."""


class ProblemError(ValueError):
    """A file of problems that is missing, damaged or of another layout."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One training question. `kind` is for the logs alone."""

    id: str
    video: str  # path
    text: str  # the user's whole text after the video
    problem_type: str  # a key of REWARDS
    solution: str
    kind: str = ""
    reply: str = ""  # what a right reply begins with, word for word, for the reward "probability"


def load_problems(path: Path, videos: Path | None = None) -> list[Problem]:
    """The video problems of a JSON or JSONL file in the Video-R1 layout; image problems are left out.

    A row has problem, problem_type, solution, a path (`path`, or `video` as in the release's own files) relative to
    `videos`, and data_type (or modality_type); options, a list, where the problem text does not hold them already.
    Raises ProblemError for a file or a row that cannot be used, with its number.
    """
    return [problem_of(row, number, path, videos or path.parent) for number, row in load_rows(path)]


def load_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The rows of a file that ask about a video, with their numbers in it. Raises ProblemError."""
    if not path.is_file():
        raise ProblemError(f"no file {path}; expected JSON or JSONL in the Video-R1 layout")
    text = path.read_text(encoding="utf-8")
    try:
        lines = text.splitlines()
        rows = [json.loads(line) for line in lines if line.strip()] if path.suffix == ".jsonl" else json.loads(text)
    except json.JSONDecodeError as error:
        raise ProblemError(f"{path} is no valid {path.suffix[1:].upper()}: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ProblemError(f"{path} is no list of rows; expected the Video-R1 layout")
    found = [
        (number, row)
        for number, row in enumerate(rows)
        if row.get("data_type", row.get("modality_type", "video")) == "video"
    ]
    if not found:
        raise ProblemError(f"{path} holds no video problem among {len(rows)} rows")
    return found


def problem_of(row: dict[str, Any], number: int, path: Path, videos: Path) -> Problem:
    """One row as a problem. Raises ProblemError with the row's number."""
    lacking = [name for name in ("problem", "problem_type", "solution") if not row.get(name)]
    file = row.get("path") or row.get("video")
    if lacking or not file:
        raise ProblemError(f"row {number} of {path} lacks {', '.join(lacking or ['path'])}")
    kind = row["problem_type"]
    if kind not in REWARDS:
        raise ProblemError(
            f"row {number} of {path} has problem_type {kind!r}, expected one of {', '.join(map(repr, REWARDS))}"
        )
    lines = [row["problem"]]
    lines += [option for option in row.get("options") or [] if option not in row["problem"]]
    name = str(row.get("problem_id", number))
    text = "\n".join(lines) + "\n" + INSTRUCTIONS[kind]
    return Problem(name, str(videos / file), text, kind, row["solution"], kind, answer_of(row["solution"]))


def testbed_problems(split: str, limit_videos: int | None = None) -> list[Problem]:
    """The test bed's questions, multiple choice, with the prompt that it is evaluated with."""
    from cacovid.testbed.data import load_split, word_of

    return [
        Problem(
            doc["question_id"],
            doc["video"],
            doc["prompt"],
            "multiple choice",
            doc["answer"],
            doc["kind"],
            f" {word_of(doc)}",
        )
        for doc in load_split(split, limit_videos)
    ]

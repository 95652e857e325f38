"""The test bed's splits as documents: video file, prompt, options, answer and where the evidence lies."""

from typing import Any, Final

from cacovid.testbed.questions import make_questions
from cacovid.testbed.scene import make_scene
from cacovid.testbed.videos import make_videos
from cacovid.testbed.words import LETTERS

SPLITS: Final = {"train": 0, "validation": 1, "test": 2}
"""Split name -> first number of its seeds. The splits share no seed and no handwritten digit."""
VIDEOS: Final = {"train": 2000, "validation": 60, "test": 250}
"""Videos in each split; each has one question of every kind."""


class UnknownSplitError(ValueError):
    """A split that the test bed does not have."""


def split_seeds(split: str, limit_videos: int | None = None) -> list[tuple[int, int]]:
    """The scene seeds of a split, in order.

    Raises:
        UnknownSplitError: for a name that is not in SPLITS.
        ValueError: for a `limit_videos` below one.
    """
    if split not in SPLITS:
        raise UnknownSplitError(f"test-bed split {split!r} does not exist; use one of {', '.join(SPLITS)}")
    if limit_videos is not None and limit_videos < 1:
        raise ValueError(f"limit_videos is {limit_videos}, expected at least 1, or None for all videos")
    count = VIDEOS[split] if limit_videos is None else min(limit_videos, VIDEOS[split])
    return [(SPLITS[split], number) for number in range(count)]


def load_split(split: str, limit_videos: int | None = None) -> list[dict[str, Any]]:
    """The documents of a split, video by video; missing videos are made first.

    A document has question_id, video_id, video (path of the mp4), question, options (four strings),
    answer ("A" to "D"), kind, prompt (the user's whole text after the video), evidence and object_cells
    (lists of [frame, patch] among 16 sampled frames of 25 pooled tokens; object_cells holds every cell
    with an object in it, asked for or not, and no clutter).
    """
    seeds = split_seeds(split, limit_videos)
    documents = []
    for seed, path in zip(seeds, make_videos(seeds), strict=True):
        scene = make_scene(seed)
        video_id = f"{split}-{seed[1]:06d}"
        objects = [list(cell) for cell in scene.object_cells()]
        for question in make_questions(scene):
            documents.append(
                {
                    "question_id": f"{video_id}-{question.kind}",
                    "video_id": video_id,
                    "video": str(path),
                    "question": question.text,
                    "options": list(question.options),
                    "answer": question.letter,
                    "kind": question.kind,
                    "prompt": question.prompt(),
                    "evidence": [list(cell) for cell in question.evidence],
                    "object_cells": objects,
                }
            )
    return documents


def word_of(document: dict[str, Any]) -> str:
    """The text of a document's right option."""
    return str(document["options"][LETTERS.index(document["answer"])])

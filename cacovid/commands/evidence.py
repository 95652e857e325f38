"""Where the answer lies, for the questions of the test bed."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cacovid.evidence import token_frames

if TYPE_CHECKING:
    from cacovid.testbed.questions import Question

QUESTION_ID = re.compile(r"(train|validation|test)-(\d{6})-([a-z]+)")


def from_id(question_id: str) -> "tuple[Path, Question] | None":
    """Video (made if it is missing) and question of a test-bed question id; None for any other words.

    Raises ValueError for a video number or a kind of question that the test bed does not have.
    """
    match = QUESTION_ID.fullmatch(question_id)
    if match is None:
        return None
    from cacovid.testbed.data import SPLITS, VIDEOS
    from cacovid.testbed.videos import make_video
    from cacovid.testbed.words import KINDS

    split, number, kind = match[1], int(match[2]), match[3]
    if number >= VIDEOS[split] or kind not in KINDS:
        raise ValueError(
            f"the test bed has no question {question_id!r}; videos of {split}: 000000 to {VIDEOS[split] - 1:06d}, "
            f"kinds: {', '.join(KINDS)}"
        )
    seed = (SPLITS[split], number)
    return make_video(seed), _questions(seed)[KINDS.index(kind)]


def from_file(video: Path, words: str) -> "Question | None":
    """The test bed's question that `words` ask about `video`, where the file lies in the test bed's cache."""
    from cacovid.testbed.data import SPLITS
    from cacovid.testbed.videos import video_path

    folder, stem = video.parent.name, video.stem
    if not (folder.isdecimal() and stem.isdecimal() and int(folder) in SPLITS.values()):
        return None
    seed = (int(folder), int(stem))
    if video_path(seed).resolve() != video.resolve():
        return None
    asked = " ".join(words.split())
    return next((q for q in _questions(seed) if q.text in asked), None)


def _questions(seed: tuple[int, int]) -> "list[Question]":
    from cacovid.testbed.questions import make_questions
    from cacovid.testbed.scene import make_scene

    return make_questions(make_scene(seed))


def cells(
    question: "Question", indices: tuple[int, ...], grid: tuple[int, int], merged: int = 1
) -> NDArray[np.bool_] | None:
    """(F, S) cells that hold the answer; None unless frames and grid are those that the test bed's cells mean.

    `merged` frames are one frame of tokens.
    """
    from cacovid.testbed.render import REACH, moment_frames
    from cacovid.testbed.scene import GRID

    shown = token_frames(moment_frames(), indices, merged, REACH)
    if shown is None or grid != (GRID, GRID):
        return None
    out = np.zeros((-(-len(indices) // merged), GRID * GRID), dtype=np.bool_)
    frames, patches = np.array(question.evidence).T
    out[np.array(shown)[frames], patches] = True
    return out

"""The one error that an unreadable video ends in, and its reasons."""

from typing import Literal

Reason = Literal[
    "missing",  # no such file
    "empty",  # zero bytes
    "truncated",  # shorter than its container promises
    "no_frames",  # a video stream without a single frame
    "no_video_stream",  # sound only, or sound with a cover picture
    "timeout",  # the worker was killed at its time limit
    "crashed",  # the worker process died, or failed in a way that no other reason covers
    "undecodable",  # everything else: no video at all, damaged data, a folder, no permission
]
"""Why a file gave no frames; stable, fit for a results table."""


class VideoError(ValueError):
    """A video file that gives no trustworthy frames.

    Attributes: `reason` (a `Reason`), `path` as it was asked for, `detail` (what was got, what was expected,
    what to do). The three are the exception's `args`, so it survives pickling.
    """

    def __init__(self, reason: Reason, path: str, detail: str) -> None:
        super().__init__(reason, path, detail)
        self.reason: Reason = reason
        self.path = path
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.path}: {self.detail} [{self.reason}]"

"""What a read gives back, and the rule that picks the frames. Axes: F frames, H x W pixels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

Sampling = Literal["round", "floor"]
Backend = Literal["decord", "pyav"]


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """The sampled frames of one video file and where they come from."""

    frames: NDArray[np.uint8]  # (F, H, W, 3) RGB, upright: rotation metadata is applied
    indices: tuple[int, ...]  # F rising frame indices in presentation order, 0 = first frame shown
    seconds: tuple[float, ...]  # presentation time of each, seconds from the first frame shown
    total_frames: int  # frames shown in the whole file
    fps: float  # average over the file; 0.0 where one frame leaves it unknown
    backend: Backend  # the decoder that made the frames
    sampling: Sampling
    path: str  # as asked for
    sha256: str  # of the file's bytes, hex

    @property
    def rate(self) -> float:
        """Frames read for each second of the video; 0.0 unknown."""
        return len(self.indices) / self.total_frames * self.fps


class Decoded(NamedTuple):
    """What a backend returns; the fields are those of `Clip`."""

    frames: NDArray[np.uint8]  # (F, H, W, 3)
    indices: NDArray[np.int64]  # (F,)
    seconds: NDArray[np.float64]  # (F,)
    total: int
    fps: float


def frame_rate(seconds: NDArray[np.float64], stated: float) -> float:
    """Average frames a second over (n,) presentation times; the container's word where one frame leaves it open."""
    span = float(seconds[-1] - seconds[0])
    return (len(seconds) - 1) / span if span > 0 else stated


Choose = Callable[[int], NDArray[np.int64]]
"""Total number of frames -> the indices to read."""


def sample_indices(total: int, frames: int, rule: Sampling = "round") -> NDArray[np.int64]:
    """`frames` uniformly spaced frame indices out of `total`, first and last frame included.

    "round" is round(linspace(0, total-1, frames)); "floor" is linspace(0, total-1, frames, dtype=int), which
    cuts the fraction off, as lmms-eval does. They differ: 4 of 9 frames are 0, 3, 5, 8 or 0, 2, 5, 8.

    A video with fewer than `frames` frames gives each of them once, a one-frame video one index; one index
    asked for is frame 0. lmms-eval repeats frames of short videos instead, which costs tokens and adds nothing.

    Raises ValueError for `total` or `frames` below one, or an unknown rule.
    """
    if rule not in get_args(Sampling):
        raise ValueError(f"sampling rule {rule!r}, expected one of {', '.join(get_args(Sampling))}")
    if total < 1 or frames < 1:
        raise ValueError(f"frames={frames} of a video of {total}, expected at least one of each")
    if frames >= total:
        return np.arange(total, dtype=np.int64)
    points = np.linspace(0, total - 1, frames)
    return (np.round(points) if rule == "round" else points).astype(np.int64)

"""Decoded videos: the last few are kept, since benchmarks ask several questions on one video in a row."""

import os
import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache

from cacovid.store import Counters
from cacovid.video import Clip, VideoError, VideoWorker
from cacovid.video.clip import Sampling


@dataclass(frozen=True, slots=True)
class Read:
    """A clip, the seconds that reading it took (0.0 if it was still at hand), and the file's stamp."""

    clip: Clip
    seconds: float
    stamp: tuple[int, int]


def stamp(path: str) -> tuple[int, int] | None:
    """(bytes, modification time in ns) of a file; None if it cannot be looked at."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


@cache
def shared_worker() -> VideoWorker:
    """The process's one reader: sweeps evaluate many cells in one process, and starting a reader takes a second.

    It ends with this process, however that ends.
    """
    return VideoWorker()


class ClipCache:
    """Reads videos through one worker; keeps the `keep` most recent clips."""

    def __init__(
        self, worker: VideoWorker, counters: Counters, *, frames: int, sampling: Sampling, timeout: float, keep: int
    ) -> None:
        self._worker, self._counters, self._keep = worker, counters, keep
        self._frames, self._sampling, self._timeout = frames, sampling, timeout
        self._clips: OrderedDict[tuple[str, tuple[int, int]], Clip] = OrderedDict()
        self._unreadable: dict[tuple[str, tuple[int, int]], VideoError] = {}

    def read(self, path: str) -> Read:
        """The clip of a file as it is now. Raises VideoError, at once for a file that could not be read before."""
        found = stamp(path)
        if found is None:
            raise VideoError("missing", path, "no such file; check the data set's folder")
        key = (os.path.abspath(path), found)
        if key in self._clips:
            self._clips.move_to_end(key)
            return Read(self._clips[key], 0.0, found)
        if key in self._unreadable:  # a file that hangs costs its time limit once, not once a question
            raise self._unreadable[key].with_traceback(None)
        start = time.perf_counter()
        try:
            clip = self._worker.read(path, frames=self._frames, sampling=self._sampling, timeout=self._timeout)
        except VideoError as error:
            self._unreadable[key] = error
            raise
        self._counters.decoded += 1
        self._clips[key] = clip
        while len(self._clips) > self._keep:
            self._clips.popitem(last=False)
        return Read(clip, time.perf_counter() - start, found)

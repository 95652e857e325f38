"""Decoded videos: the next ones are read and preprocessed ahead of their turn, and the last few are kept, since
benchmarks ask several questions on one video in a row."""

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from queue import LifoQueue
from threading import Lock
from typing import NamedTuple

from cacovid.backbones import Pixels
from cacovid.lmms.prefetch import Ahead
from cacovid.store import Counters
from cacovid.video import Clip, VideoError, VideoWorker
from cacovid.video.clip import Sampling


@dataclass(frozen=True, slots=True)
class Read:
    """A clip, what it cost, and the file's stamp."""

    clip: Clip
    seconds: float  # that its reader took, whoever waited for it; 0.0 if the clip was still at hand
    stamp: tuple[int, int]
    waited: float | None = None  # seconds that the caller waited for a clip that was read ahead
    pixels: Pixels | None = None  # what the processor made of it, if it did so ahead


class _Ahead(NamedTuple):
    """What was made of a file before its turn."""

    clip: Clip
    seconds: float  # of reading
    pixels: Pixels


def stamp(path: str) -> tuple[int, int] | None:
    """(bytes, modification time in ns) of a file; None if it cannot be looked at."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


@cache
def shared_worker(number: int = 0) -> VideoWorker:
    """This process's readers: sweeps evaluate many cells in one process, and starting a reader takes a second.

    They end with this process, however that ends.
    """
    return VideoWorker()


Key = tuple[str, tuple[int, int]]
"""A file as it is now: absolute path and stamp."""


class ClipCache:
    """Reads videos through `workers`, `ahead` of them before their turn; keeps the `keep` most recent clips.

    A file that is read ahead has its time limit from when a worker takes it up. What goes wrong with it is raised when
    it is asked for, as if it were read then.
    """

    def __init__(
        self,
        workers: Sequence[VideoWorker],
        counters: Counters,
        *,
        frames: int,
        sampling: Sampling,
        timeout: float,
        keep: int,
        ahead: int = 0,
        preprocess: Callable[[Clip], Pixels],
    ) -> None:
        self._workers, self._counters, self._keep = workers, counters, keep
        self._frames, self._sampling, self._timeout = frames, sampling, timeout
        self._clips: OrderedDict[Key, Clip] = OrderedDict()
        self._unreadable: dict[Key, VideoError] = {}
        self._ahead: Ahead[Key, _Ahead | None] = Ahead(ahead)
        self._preprocess = preprocess
        self._counting = Lock()
        self._idle: LifoQueue[VideoWorker] = LifoQueue()  # the first one last: the others start when they are needed
        for worker in reversed(workers):
            self._idle.put(worker)

    @property
    def ahead(self) -> int:
        """How many videos are read before their turn; 0 off."""
        return self._ahead.count

    def prefetch(self, paths: Iterable[str], stored: Callable[[str], bool]) -> None:
        """Begin to read the files that will be asked for next, soonest first, and return.

        Args:
            paths: all of them, those of an earlier call again: what is not named any more is dropped.
            stored: whether a file need not be read; asked in a background thread.
        """
        wanted = {}
        for path in paths if self.ahead else ():
            if (found := stamp(path)) is not None:
                key = os.path.abspath(path), found
                if key not in self._clips and key not in self._unreadable:
                    wanted[key] = partial(self._unless_stored, path, key, stored)
        self._ahead.begin(wanted)

    def stop(self) -> None:
        """Drop what is read ahead; a reader that hangs over a file is killed."""
        if self._ahead.stop():
            for worker in self._workers:
                worker.kill()

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
            got = self._ahead.take(key) if key in self._ahead else None
            if got is not None:
                read = Read(got.clip, got.seconds, found, time.perf_counter() - start, got.pixels)
            else:
                read = Read(*self._decode(path), found)
        except VideoError as error:
            self._unreadable[key] = error
            raise
        self._clips[key] = read.clip
        while len(self._clips) > self._keep:
            self._clips.popitem(last=False)
        return read

    def _unless_stored(self, path: str, key: Key, stored: Callable[[str], bool]) -> _Ahead | None:
        if stored(path) or not self._ahead.wants(key):  # hashing a long video takes seconds: it may be dropped by now
            return None
        clip, seconds = self._decode(path)
        return _Ahead(clip, seconds, self._preprocess(clip))

    def _decode(self, path: str) -> tuple[Clip, float]:
        """A file's clip, and the seconds that an idle worker took for it."""
        worker = self._idle.get()
        start = time.perf_counter()
        try:
            clip = worker.read(path, frames=self._frames, sampling=self._sampling, timeout=self._timeout)
        finally:
            self._idle.put(worker)
        with self._counting:
            self._counters.decoded += 1
        return clip, time.perf_counter() - start

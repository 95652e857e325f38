"""Decoded clips: a file is read once, ahead of its turn, and what is wrong with it is said when it is asked for."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cacovid.lmms.clips import ClipCache
from cacovid.store import Counters
from cacovid.video import VideoError


class Reader:
    """In place of a `VideoWorker`: the clip of a file is its name. Files called hang* are never read."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.done: list[str] = []
        self._killed = threading.Event()

    def read(self, path: str, **_: Any) -> str:
        name = Path(path).name
        self.begun.append(name)
        if name.startswith("hang"):
            self._killed.wait(30)
            raise VideoError("crashed", path, "the reader process died (SIGKILL)")
        if name.startswith("bad"):
            raise VideoError("timeout", path, "killed after 60 s")
        self.done.append(name)
        return name

    def kill(self) -> None:
        self._killed.set()


Make = Callable[..., ClipCache]


@pytest.fixture
def reader() -> Reader:
    return Reader()


def preprocess(clip: Any) -> dict[str, Any]:
    return {"made of": clip}


@pytest.fixture
def make(reader: Any) -> Iterator[Make]:
    made: list[ClipCache] = []

    def cache(ahead: int = 0, keep: int = 1) -> ClipCache:
        limits: dict[str, Any] = {"frames": 4, "sampling": "round", "timeout": 60, "preprocess": preprocess}
        made.append(ClipCache([reader] * max(ahead, 1), Counters(), keep=keep, ahead=ahead, **limits))
        return made[-1]

    yield cache
    for one in made:
        one.stop()


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], str]:
    def path(name: str) -> str:
        (tmp_path / name).write_text(name)
        return str(tmp_path / name)

    return path


def nothing_stored(path: str) -> bool:
    return False


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "did not come true within 20 s"
        time.sleep(0.002)


@pytest.mark.parametrize("ahead", [0, 1])
def test_an_unreadable_file_is_tried_once_until_it_changes(
    make: Make, reader: Reader, file: Callable[[str], str], ahead: int
) -> None:
    clips, path, good = make(ahead), file("bad"), file("good")
    for _ in range(2):
        clips.prefetch([path, good], nothing_stored)
        with pytest.raises(VideoError, match="killed after"):
            clips.read(path)
    clips.read(good)
    assert reader.begun == ["bad", "good"]
    Path(path).write_text("another")
    clips.prefetch([path], nothing_stored)
    with pytest.raises(VideoError):
        clips.read(path)
    assert reader.begun == ["bad", "good", "bad"]


def test_files_are_read_once_and_before_they_are_asked_for(
    make: Make, reader: Reader, file: Callable[[str], str]
) -> None:
    clips, paths = make(2), [file(name) for name in "abc"]
    for _ in range(2):
        clips.prefetch([*paths, *paths], nothing_stored)
    until(lambda: len(reader.done) == 3)
    for path in paths:
        read = clips.read(path)
        assert read.clip == Path(path).name and read.waited is not None  # type: ignore[comparison-overlap]
        assert read.pixels == {"made of": read.clip}, "the processor's turn came ahead, too"
        clips.prefetch(paths[paths.index(path) :], nothing_stored)
    assert sorted(reader.done) == ["a", "b", "c"] and clips._counters == Counters(decoded=3)
    again = clips.read(paths[2])
    assert (again.seconds, again.waited) == (0.0, None), "the clip is still at hand"
    assert again.pixels is None, "its pixels are not: they are larger"


def test_reading_in_turn_begins_nothing(make: Make, reader: Reader, file: Callable[[str], str]) -> None:
    clips, path = make(0), file("a")
    clips.prefetch([path], nothing_stored)
    assert not reader.begun and (read := clips.read(path)).waited is None and reader.begun == ["a"]
    assert read.pixels is None


def test_an_error_waits_for_its_own_turn(make: Make, reader: Reader, file: Callable[[str], str]) -> None:
    clips, paths = make(2), [file(name) for name in ("a", "bad", "b")]
    clips.prefetch(paths, nothing_stored)
    until(lambda: len(reader.begun) == 3)
    assert clips.read(paths[0]).clip == "a"  # type: ignore[comparison-overlap]
    with pytest.raises(VideoError, match="killed after"):
        clips.read(paths[1])
    assert clips.read(paths[2]).clip == "b"  # type: ignore[comparison-overlap]
    assert reader.begun.count("bad") == 1


def test_what_is_stored_is_read_only_if_it_is_asked_for_after_all(
    make: Make, reader: Reader, file: Callable[[str], str]
) -> None:
    clips, asked = make(1), threading.Event()
    clips.prefetch([path := file("a")], lambda _: not asked.set())  # evicted since, say
    assert asked.wait(20) and clips.read(path).waited is None
    assert reader.done == ["a"]


def test_what_is_not_wanted_any_more_is_not_read(make: Make, reader: Reader, file: Callable[[str], str]) -> None:
    clips, go, slow, late = make(1), threading.Event(), file("slow"), file("late")
    hashing, looked_up = threading.Event(), []

    def stored(path: str) -> bool:
        looked_up.append(path)
        hashing.set()
        assert go.wait(20)
        return False

    clips.prefetch([slow, late], stored)
    assert hashing.wait(20)
    clips.prefetch([wanted := file("a")], nothing_stored)
    go.set()
    clips.read(wanted)
    assert reader.begun == ["a"] and looked_up == [slow], "the other one was still in the queue"


def test_a_reader_that_hangs_does_not_outlive_the_evaluation(
    make: Make, reader: Reader, file: Callable[[str], str]
) -> None:
    clips = make(1)
    clips.prefetch([file("hang"), file("a")], nothing_stored)
    until(lambda: reader.begun == ["hang"])
    clips.stop()
    assert reader._killed.is_set()
    clips.prefetch([path := file("a")], nothing_stored)
    assert clips.read(path).clip == "a" and reader.begun == ["hang", "a"]  # type: ignore[comparison-overlap]


def test_idle_readers_are_left_alone(make: Make, reader: Reader, file: Callable[[str], str]) -> None:
    clips = make(2)
    clips.prefetch([path := file("a")], nothing_stored)
    clips.read(path)
    clips.stop()
    assert not reader._killed.is_set()

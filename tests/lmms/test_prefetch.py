"""Reading ahead changes times alone: the look ahead, and whole evaluations with it and without."""

import fcntl
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from lmms.conftest import World
from lmms.scene import UTILS, document

from cacovid.lmms.arguments import ArgumentError, Arguments
from cacovid.lmms.prefetch import looking_ahead
from cacovid.video import VideoWorker


@pytest.mark.parametrize("far", [0, 1, 3, 9])
def test_each_comes_with_those_that_follow_it(far: int) -> None:
    made: list[int] = []
    numbers = (made.append(n) or n for n in range(5))
    seen = []
    for first, following in looking_ahead(numbers, lambda queue: len(queue) >= far):
        assert list(following) == list(range(first + 1, min(first + 1 + far, 5)))
        assert len(made) == min(first + 1 + far, 5), "no more is made than is looked at"
        seen.append(first)
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("far", [0, 1, 9])
def test_an_exception_comes_in_its_turn(far: int) -> None:
    def numbers() -> Iterator[int]:
        yield from range(3)
        raise KeyError("no such document")

    seen = []

    def enough(queue: Sequence[int]) -> bool:
        return len(queue) >= far

    with pytest.raises(KeyError, match="no such document"):
        for number, _ in looking_ahead(numbers(), enough):
            seen.append(number)
    assert seen == [0, 1, 2]


def test_less_than_none_is_refused() -> None:
    with pytest.raises(ArgumentError, match="prefetch=-1, expected at least 0; 0 reads each video when"):
        Arguments(pretrained="x", prefetch=-1)


def runs(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Samples by run, in the order of their documents, without times."""
    out = {}
    for path in (folder / "runs").glob("*/samples.jsonl"):
        samples = sorted(map(json.loads, path.read_text().splitlines()), key=lambda row: row["doc_id"])
        out[path.parent.name] = [{k: v for k, v in row.items() if k not in ("seconds", "written")} for row in samples]
    return out


def stages(folder: Path) -> list[list[str]]:
    (path,) = (folder / "runs").glob("*/samples.jsonl")
    return [list(json.loads(line)["seconds"])[:3] for line in path.read_text().splitlines()]


def mixed(world: World, hung: Path) -> list[dict[str, Any]]:
    media: list[dict[str, Any]] = [
        {"video": world.videos[0]},
        {"video": world.broken},
        {"video": world.videos[0]},
        {},
        {"video": str(world.root / "gone.mp4")},
        {"video": world.broken},
        {"video": world.videos[1]},
        {"images": [[255, 0, 0]]},
        {"video": str(hung)},
        {"video": world.videos[2]},
        {"video": str(hung)},
        {"video": world.videos[1], "second": world.videos[2]},
        {"video": world.videos[0]},
    ]
    return [document(n, **m) for n, m in enumerate(media)]


@pytest.fixture
def hung(world: World, tmp_path: Path) -> Iterator[Path]:
    """A sound file whose opening blocks in the kernel, as on a dead network disk: this process holds a lease on it."""
    if not sys.platform.startswith("linux"):
        pytest.skip("leases are Linux's")
    path = tmp_path / "hung.mp4"
    path.write_bytes(Path(world.videos[1]).read_bytes())
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # the kernel's request to give the lease up
    lease = os.open(path, os.O_RDWR)
    try:
        fcntl.fcntl(lease, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError:
        pytest.skip("the temporary folder's file system has no leases")
    yield path
    os.close(lease)
    signal.signal(signal.SIGIO, before)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 4])
def test_records_are_the_same_whatever_is_read_ahead(
    world: World, tmp_path: Path, hung: Path, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hung and a broken file among them, two questions on each; then with three answers missing."""
    read: list[str] = []
    real = VideoWorker.read

    def counted(self: VideoWorker, path: Any, *args: Any, **kwargs: Any) -> Any:
        read.append(Path(path).name)
        return real(self, path, *args, **kwargs)

    monkeypatch.setattr(VideoWorker, "read", counted)
    documents, limit = mixed(world, hung), {"read_timeout": 4}
    for prefetch in (0, 3):
        folder = tmp_path / str(prefetch)
        world.evaluate(folder, documents, batch_size=batch_size, settings={"prefetch": prefetch, **limit})
        assert read.count("hung.mp4") == read.count("broken.mp4") == 1, "neither is tried twice"
        read.clear()
    alone, ahead = runs(tmp_path / "0"), runs(tmp_path / "3")
    assert alone == ahead and len(alone) == 1, "and reading ahead is no part of a run's identity"
    (rows,) = alone.values()
    reasons = {r["doc_id"]: r["failure"]["reason"] for r in rows if r["failure"]}
    assert reasons == {1: "truncated", 4: "missing", 5: "truncated", 8: "timeout", 10: "timeout", 11: "refused"}
    assert ["read", "waited", "vision"] in stages(tmp_path / "3") and ["read", "waited", "vision"] not in stages(
        tmp_path / "0"
    )

    (path,) = (tmp_path / "3" / "runs").glob("*/samples.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:6] + lines[9:]))
    world.evaluate(tmp_path / "3", documents, batch_size=batch_size, settings={"prefetch": 2, **limit})
    assert runs(tmp_path / "3") == alone


@pytest.mark.slow
@pytest.mark.parametrize("store", ["memory", "disk"])
def test_with_a_store_each_video_is_read_once(
    world: World, tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an order in which the clips at hand have changed when a video comes back."""
    read: list[str] = []
    real = VideoWorker.read
    monkeypatch.setattr(VideoWorker, "read", lambda *a, **k: read.append(str(a[1])) or real(*a, **k))
    documents = [document(n, video=world.videos[n % 3]) for n in range(9)]
    world.evaluate(tmp_path / "plain", documents, settings={"prefetch": 0})
    assert len(read) == 9
    read.clear()
    settings = {"prefetch": 2, "store": store, "store_dir": str(tmp_path / "store"), "store_gib": 1}
    world.evaluate(tmp_path / "both", documents, settings=settings)
    assert sorted(read) == world.videos and runs(tmp_path / "both") == runs(tmp_path / "plain")


@pytest.mark.slow
def test_videos_whose_answers_are_there_are_not_read(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [document(n, video=world.videos[n % 3]) for n in range(4)]
    world.evaluate(tmp_path, documents, limit=3)
    read: list[str] = []
    real = VideoWorker.read
    monkeypatch.setattr(VideoWorker, "read", lambda *a, **k: read.append(str(a[1])) or real(*a, **k))
    world.evaluate(tmp_path, documents)
    assert read == [world.videos[0]], "that of the fourth question alone"


@pytest.mark.slow
def test_a_task_that_breaks_keeps_what_was_answered_before(world: World, tmp_path: Path) -> None:
    """Its code is called ahead of its turn, and ends the run in it."""
    utils = UTILS.replace("def visual(doc):", "def visual(doc):\n    assert doc['number'] < 3, 'no such column'")
    with pytest.raises(AssertionError, match="no such column"):
        world.evaluate(
            tmp_path,
            [document(n, video=world.videos[0]) for n in range(5)],
            files={"utils": utils},
            settings={"prefetch": 2},
        )
    (rows,) = runs(tmp_path).values()
    assert [r["doc_id"] for r in rows] == [0, 1, 2]

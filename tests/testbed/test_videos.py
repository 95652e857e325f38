"""Real mp4 files: what decord reads is what was drawn, and the cache is safe."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import decord
import numpy as np
import pytest

from cacovid.testbed.data import UnknownSplitError, load_split
from cacovid.testbed.render import RAW_FRAMES, moment_frames, render
from cacovid.testbed.scene import MOMENTS, make_scene
from cacovid.testbed.sight import read_frames
from cacovid.testbed.videos import encode, make_video, video_path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACOVID_CACHE", str(tmp_path))


def test_round_trip_through_h264() -> None:
    path = make_video((2, 5))
    reader = decord.VideoReader(str(path), num_threads=1)
    assert len(reader) == RAW_FRAMES
    drawn = render(make_scene((2, 5)), moment_frames()).astype(int)
    read = read_frames(path, MOMENTS).astype(int)
    assert read.shape == drawn.shape == (MOMENTS, 160, 160, 3)
    small = np.s_[:, ::4, ::4]
    apart = np.abs(read[small][:, None] - drawn[small][None]).mean(axis=(2, 3, 4))
    assert apart.diagonal().max() < 8
    # Among equal frames (the still stretch) any may be nearest, so compare distances, not places.
    assert (apart.diagonal() <= apart.min(axis=1) + 0.5).all()


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    frames = render(make_scene((0, 1)))
    digests = set()
    for name in ("a.mp4", "b.mp4"):
        encode(frames, tmp_path / name)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_video_is_made_once_and_leaves_nothing_beside() -> None:
    path = make_video((2, 0))
    before = path.stat().st_mtime_ns
    assert make_video((2, 0)) == path
    assert path.stat().st_mtime_ns == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_makers_of_the_same_video_do_not_disturb_each_other() -> None:
    with ThreadPoolExecutor(3) as pool:
        paths = list(pool.map(make_video, [(2, 1)] * 3))
    assert len(set(paths)) == 1
    assert len(decord.VideoReader(str(paths[0]), num_threads=1)) == RAW_FRAMES
    assert [file.name for file in paths[0].parent.iterdir()] == [paths[0].name]


def test_a_failed_write_leaves_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(frames: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cacovid.testbed.videos.encode", full_disk)
    with pytest.raises(OSError, match="No space left"):
        make_video((2, 2))
    assert list(video_path((2, 2)).parent.iterdir()) == []


def test_documents_have_what_a_task_needs() -> None:
    documents = load_split("validation", limit_videos=2)
    assert len(documents) == 14
    assert len({doc["question_id"] for doc in documents}) == 14
    for doc in documents:
        assert Path(doc["video"]).is_file()
        assert doc["answer"] in "ABCD"
        assert len(doc["options"]) == 4
        assert doc["prompt"].startswith(doc["question"])
        assert f"{doc['answer']}. {doc['options']['ABCD'.index(doc['answer'])]}" in doc["prompt"]
        cells = {tuple(cell) for cell in doc["object_cells"]}
        assert {tuple(cell) for cell in doc["evidence"]} <= cells
        assert all(0 <= frame < 16 and 0 <= patch < 25 for frame, patch in cells)


def test_unknown_split_and_bad_limit_are_refused() -> None:
    with pytest.raises(UnknownSplitError, match="'dev' does not exist; use one of train, validation, test"):
        load_split("dev")
    with pytest.raises(ValueError, match="limit_videos is 0, expected at least 1"):
        load_split("test", limit_videos=0)

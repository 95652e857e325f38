"""Decoded clips: a file that cannot be read costs its time once."""

from pathlib import Path
from typing import Any

import pytest

from cacovid.lmms.clips import ClipCache
from cacovid.store import Counters
from cacovid.video import VideoError


class Worker:
    """A reader that times out on every file, and counts."""

    calls = 0

    def read(self, path: str, **_: Any) -> None:
        self.calls += 1
        raise VideoError("timeout", path, "killed after 60 s")


def test_an_unreadable_file_is_tried_once_until_it_changes(tmp_path: Path) -> None:
    worker: Any = Worker()
    clips = ClipCache(worker, Counters(), frames=4, sampling="round", timeout=60, keep=1)
    file = tmp_path / "a.mp4"
    file.write_bytes(b"1")
    for _ in range(2):
        with pytest.raises(VideoError, match="killed after"):
            clips.read(str(file))
    assert worker.calls == 1
    file.write_bytes(b"22")
    with pytest.raises(VideoError):
        clips.read(str(file))
    assert worker.calls == 2

"""Two hundred files must not cost what one costs two hundred times."""

import os
import sys
from pathlib import Path

import pytest

from cacovid.video import VideoError, VideoWorker, read_clip

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at processes through /proc")

READS = 200
WARM_UP = 40
MEBIBYTE = 2**20
GROWTH = 16 * MEBIBYTE  # a leaked clip of 16 frames of 80 x 64 is 0.23 MiB, 37 MiB in 160 reads


def state(pid: int) -> tuple[int, int]:
    """(resident bytes, open descriptors) of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(f"/proc/{pid}/fd"))


def read_many(films, read, *processes):
    names = ["plain.mp4", "open_gop.mkv", "vp9.webm", "b_frames.ts", "edit_list.mp4", "missing.mp4"]
    for turn in range(READS):
        if turn == WARM_UP:
            before = [state(pid) for pid in processes]
        try:
            read(films / names[turn % len(names)], 16)
        except VideoError as error:
            assert error.reason == "missing"
    for pid, (memory, descriptors) in zip(processes, before, strict=True):
        after, now_open = state(pid)
        assert now_open == descriptors
        assert after - memory < GROWTH, f"{(after - memory) / MEBIBYTE:.1f} MiB more after {READS - WARM_UP} reads"


@pytest.mark.parametrize("backend", ["auto", "pyav"])
def test_in_this_process(films, backend):
    read_many(films, lambda path, frames: read_clip(path, frames, backend=backend), os.getpid())


def test_in_the_worker_and_its_caller(films):
    with VideoWorker() as worker:
        worker.read(films / "plain.mp4")
        read_many(films, worker.read, worker.pid, os.getpid())

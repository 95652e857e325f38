"""The killable reader process: its limit, its death, its end."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from video.films import COUNT, film, numbers

from cacovid.video import VideoError, VideoWorker, read_clip

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at processes through /proc")


def running(pid: int) -> bool:
    """Neither gone nor a zombie that a foreign parent has not collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid: int, within: float = 10.0) -> bool:
    deadline = time.monotonic() + within
    while running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not running(pid)


@pytest.fixture(scope="module")
def worker():
    with VideoWorker() as one:
        yield one


@pytest.mark.parametrize("name", ["plain.mp4", "open_gop.mkv", "b_frames.ts"])
def test_reads_what_read_clip_reads(films, worker, name):
    here, there = read_clip(films / name, 11, sampling="floor"), worker.read(films / name, 11, sampling="floor")
    assert np.array_equal(here.frames, there.frames)
    for name in set(here.__slots__) - {"frames"}:
        assert getattr(here, name) == getattr(there, name), name
        assert type(getattr(here, name)) is type(getattr(there, name)), name


def test_a_bad_file_costs_neither_the_process_nor_the_next_file(films, worker, tmp_path):
    (tmp_path / "empty.mp4").touch()
    worker.read(films / "plain.mp4", 1)
    before = worker.pid
    with pytest.raises(VideoError, match="0 bytes") as caught:
        worker.read(tmp_path / "empty.mp4")
    assert (caught.value.reason, caught.value.path) == ("empty", str(tmp_path / "empty.mp4"))
    assert numbers(worker.read(films / "plain.mp4", 2).frames) == [0, COUNT - 1]
    assert worker.pid == before


def test_relative_paths_follow_the_caller(films, worker, monkeypatch):
    monkeypatch.chdir(films)
    assert worker.read("plain.mp4", 1).path == "plain.mp4"


def test_a_process_that_hangs_is_killed_at_the_limit_and_replaced(films, worker):
    worker.read(films / "plain.mp4", 1)
    hung = worker.pid
    os.kill(hung, signal.SIGSTOP)  # as a dead network disk or an endless decoder loop: no answer, ever
    start = time.monotonic()
    with pytest.raises(VideoError, match=r"not read within 0\.5 s, the reader process was killed") as caught:
        worker.read(films / "plain.mp4", timeout=0.5)
    assert 0.5 <= time.monotonic() - start < 5
    assert caught.value.reason == "timeout"
    assert not running(hung)
    assert numbers(worker.read(films / "plain.mp4", 2).frames) == [0, COUNT - 1]
    assert worker.pid != hung


@pytest.fixture
def unreadable(tmp_path, films):
    """A sound file whose opening blocks in the kernel, as on a dead network disk: this process holds a lease on it."""
    path = tmp_path / "leased.mp4"
    path.write_bytes((films / "plain.mp4").read_bytes())
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # the kernel's request to give the lease up
    lease = os.open(path, os.O_RDWR)
    try:
        fcntl.fcntl(lease, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError:
        pytest.skip("the temporary folder's file system has no leases")
    yield path
    os.close(lease)
    signal.signal(signal.SIGIO, before)


def test_a_file_that_blocks_for_ever_is_given_up(films, worker, unreadable):
    with pytest.raises(VideoError, match="not read within") as caught:
        worker.read(unreadable, timeout=0.5)
    assert (caught.value.reason, caught.value.path) == ("timeout", str(unreadable))
    assert numbers(worker.read(films / "plain.mp4", 2).frames) == [0, COUNT - 1]


def test_a_file_that_takes_too_long_is_given_up(tmp_path, worker):
    large = film(tmp_path / "large.avi", 100, "mpeg4", scale=8)  # 640 x 512
    with pytest.raises(VideoError, match="not read within") as caught:
        worker.read(large, 100, timeout=0.01)
    assert caught.value.reason == "timeout"
    assert worker.read(large, 100, timeout=120).frames.shape == (100, 512, 640, 3)


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL"])
def test_a_process_that_dies_over_a_file_is_reported_and_replaced(films, worker, name):
    worker.read(films / "plain.mp4", 1)
    pid = worker.pid
    os.kill(pid, signal.SIGSTOP)

    def die() -> None:
        os.kill(pid, getattr(signal, name))
        os.kill(pid, signal.SIGCONT)

    timer = threading.Timer(0.3, die)
    timer.start()
    with pytest.raises(VideoError, match=rf"the reader process died \({name}\)") as caught:
        worker.read(films / "plain.mp4")
    timer.join()
    assert caught.value.reason == "crashed"
    assert numbers(worker.read(films / "plain.mp4", 2).frames) == [0, COUNT - 1]


def test_a_read_is_given_up_from_another_thread(films, worker, unreadable):
    worker.read(films / "plain.mp4", 1)
    killer = threading.Timer(0.3, worker.kill)
    killer.start()
    with pytest.raises(VideoError, match=r"the reader process died \(SIGKILL\)"):
        worker.read(unreadable, timeout=60)
    killer.join()
    worker.kill()  # one that reads nothing
    assert numbers(worker.read(films / "plain.mp4", 2).frames) == [0, COUNT - 1]


def test_a_process_that_died_between_two_files_is_no_files_fault(films, worker):
    worker.read(films / "plain.mp4", 1)
    pid = worker.pid
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # dead, and left for the worker to notice
    assert numbers(worker.read(films / "plain.mp4", 2).frames) == [0, COUNT - 1]


def test_several_workers_and_threads(films, worker):
    found: list[list[int]] = []

    def read(one: VideoWorker) -> None:
        found.extend(numbers(one.read(films / "plain.mp4", 3).frames) for _ in range(5))

    with VideoWorker() as other:
        threads = [threading.Thread(target=read, args=[one]) for one in (worker, worker, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert other.pid != worker.pid
    assert found == [[0, 50, 99]] * 15  # round(49.5) = 50


def test_arguments_are_checked_before_the_process_is_asked(films):
    with VideoWorker() as idle:
        with pytest.raises(ValueError, match=r"timeout=0, expected seconds above 0"):
            idle.read(films / "plain.mp4", timeout=0)
        with pytest.raises(ValueError, match="'ceil', expected one of"):
            idle.read(films / "plain.mp4", sampling="ceil")
        assert idle.pid is None


def test_close_ends_the_process_and_a_later_read_starts_another(films):
    one = VideoWorker()
    one.read(films / "plain.mp4", 1)
    pid = one.pid
    one.close()
    one.close()
    assert not Path(f"/proc/{pid}").exists(), "ended and collected"
    assert one.read(films / "plain.mp4", 1).total_frames == COUNT
    one.close()


SCRIPT = """
import sys
from cacovid.video import VideoWorker
worker = VideoWorker()
worker.read(sys.argv[1], 1)
print(worker.pid, flush=True)
try:
    for path in sys.argv[2:]:
        worker.read(path, 1, timeout=100)
except KeyboardInterrupt:
    print(worker.pid, worker.read(sys.argv[1], 1).indices, flush=True)
    raise
"""


def script(*paths: Path) -> tuple[subprocess.Popen[str], int]:
    """A program of its own that reads `paths` and does not close its worker; and the worker's process id."""
    command = [sys.executable, "-c", SCRIPT, *map(str, paths)]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    return program, int(program.stdout.readline())


def test_a_program_that_ends_without_closing_leaves_nothing(films):
    program, pid = script(films / "plain.mp4")
    program.communicate(timeout=120)
    assert program.returncode == 0
    assert not Path(f"/proc/{pid}").exists()


def test_ctrl_c_ends_the_read_and_the_worker_goes_with_the_program(films, unreadable):
    program, pid = script(films / "plain.mp4", unreadable)
    time.sleep(0.5)
    os.killpg(program.pid, signal.SIGINT)  # as the terminal does: the whole process group
    output, _ = program.communicate(timeout=120)
    assert output == "None (0,)\n", "the process that waits was given up, and a new one could read"
    assert program.returncode == -signal.SIGINT
    assert not Path(f"/proc/{pid}").exists()


def test_a_killed_program_takes_its_worker_along(films, unreadable):
    program, pid = script(films / "plain.mp4", unreadable)
    time.sleep(0.5)  # it waits for the file now, and will for longer than this test
    program.kill()
    program.communicate(timeout=120)
    assert ends(pid)

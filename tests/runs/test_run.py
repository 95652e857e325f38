"""A run's directory: nothing finished is lost, nothing is counted twice, two writers do not meet."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from runs.examples import BROKEN, SETTINGS, sample

from cacovid.runs import Run, RunError, RunLockedError, RunWriteError


def rows(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "samples.jsonl").read_text().splitlines()]


def about(run: Run) -> dict[str, Any]:
    return json.loads((run.folder / "run.json").read_text())


def test_a_run_that_goes_through(tmp_path: Path) -> None:
    with Run(tmp_path, SETTINGS, asked=[0, 1], documents=5, about={"model_id": "m"}) as run:
        assert about(run)["state"] == "running"
        run.record(sample(0))
        assert [r["doc_id"] for r in rows(run)] == [0], "a line is on disk when record returns"
        run.record(sample(1, prediction=None, score=None, failure=BROKEN))
    found = about(run)
    assert run.folder == tmp_path / SETTINGS.id and found["id"] == SETTINGS.id
    assert (found["state"], found["model_id"], found["asked"]) == ("done", "m", [[0, 1]])
    assert found["counts"] == {"documents": 5, "asked": 2, "answered": 1, "failed": 1, "missing": 0}
    assert found["attempts"][0]["computed"] == 2 and found["ended"] >= found["started"]


def test_resume_takes_answers_and_tries_failures_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Run(tmp_path, SETTINGS, asked=[0, 1, 2]) as run:
        run.record(sample(0))
        run.record(sample(1, prediction=None, failure=BROKEN))
        raise KeyboardInterrupt
    assert about(run)["state"] == "failed" and about(run)["error"].startswith("KeyboardInterrupt")
    with Run(tmp_path, SETTINGS, asked=[0, 1, 2]) as run:
        assert run.held == 1 and run.stored(0) == sample(0) and run.stored(1) is None
        run.take()
        run.record(sample(1))
        run.record(sample(2))
    assert [r["doc_id"] for r in rows(run)] == [0, 1, 2], "no sample twice, none missing"
    assert all(r["failure"] is None for r in rows(run))
    assert [a["taken"] for a in about(run)["attempts"]] == [0, 1]


def test_missing_samples_are_no_finished_run(tmp_path: Path) -> None:
    with Run(tmp_path, SETTINGS, asked=[0, 1]) as run:
        run.record(sample(0))
    assert (about(run)["state"], about(run)["error"]) == ("failed", "1 samples missing")


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    with Run(tmp_path, SETTINGS, asked=[0, 1]) as run:
        run.record(sample(0))
    with open(run.folder / "samples.jsonl", "a") as file:
        file.write('{"task": "small", "doc_')  # what kill -9 in the middle of a write leaves
    with Run(tmp_path, SETTINGS, asked=[0, 1]) as run:
        assert run.held == 1
        run.record(sample(1))
    assert [r["doc_id"] for r in rows(run)] == [0, 1]


def test_a_damaged_line_in_the_middle_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / SETTINGS.id
    folder.mkdir()
    good = json.dumps(sample(0).to_json())
    (folder / "samples.jsonl").write_text(f"{good}\nnonsense\n{good}\n")
    with pytest.raises(RunError, match=r"line 2 is damaged .* delete that line"):
        Run(tmp_path, SETTINGS, asked=[0])
    (folder / "samples.jsonl").write_text('{"doc_id": 1}\n')
    with pytest.raises(RunError, match="line 1 is no sample of schema 1"):
        Run(tmp_path, SETTINGS, asked=[0])


def test_two_writers_are_refused(tmp_path: Path) -> None:
    with (
        Run(tmp_path, SETTINGS, asked=[0]) as run,
        pytest.raises(RunLockedError, match=rf"written by another process \(pid {os.getpid()}\); wait for it"),
    ):
        Run(tmp_path, SETTINGS, asked=[0])
    with pytest.raises(ZeroDivisionError), Run(tmp_path, SETTINGS, asked=[0]) as run:
        run.record(sample(0))
        _ = 1 / 0
    Run(tmp_path, SETTINGS, asked=[0]).__exit__(None, None, None)  # an exception has given the lock back


def test_a_killed_writer_leaves_lines_and_no_lock(tmp_path: Path) -> None:
    code = f"""
import sys, time
sys.path[:0] = {sys.path!r}
from runs.examples import SETTINGS, sample
from cacovid.runs import Run
run = Run({str(tmp_path)!r}, SETTINGS, asked=[0, 1])
run.record(sample(0))
print("written", flush=True)
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "written\n"
    with pytest.raises(RunLockedError, match=f"pid {process.pid}"):
        Run(tmp_path, SETTINGS, asked=[0, 1])
    process.send_signal(signal.SIGKILL)
    process.wait()
    with Run(tmp_path, SETTINGS, asked=[0, 1]) as run:
        assert about(run)["attempts"][0]["ended"] is None, "the killed attempt has no end"
        assert run.held == 1
        run.record(sample(1))
    assert about(run)["state"] == "done"


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """The kernel refuses to let any file grow beyond `size` bytes, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_keeps_what_is_finished(tmp_path: Path) -> None:
    long = sample(1, prediction="x" * 5000)
    words = r"the disk is full; 1 finished samples are kept in .* run the same"
    with pytest.raises(RunWriteError, match=words), Run(tmp_path, SETTINGS, asked=[0, 1]) as run:
        run.record(sample(0))
        with file_size_limit(4096):
            run.record(long)
    assert [r["doc_id"] for r in rows(run)] == [0], "no half line"
    assert about(run)["state"] == "failed"
    with Run(tmp_path, SETTINGS, asked=[0, 1]) as run:
        assert run.held == 1
        run.record(long)
    assert about(run)["state"] == "done" and len(rows(run)) == 2


@pytest.mark.slow
def test_a_really_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs privileges")
    try:
        asked = list(range(100))
        with pytest.raises(RunWriteError, match="the disk is full"), Run(disk, SETTINGS, asked=asked) as run:
            for number in asked:
                run.record(sample(number, prediction="x" * 2000))
        kept = [r["doc_id"] for r in rows(run)]
        assert kept == list(range(len(kept))) and 10 < len(kept) < 40
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunWriteError, match=r"writing failed .* nothing new was computed. Make the folder writable"):
        Run(tmp_path / "file", SETTINGS, asked=[0])


def test_without_resume_old_answers_are_set_aside(tmp_path: Path) -> None:
    with Run(tmp_path, SETTINGS, asked=[0]) as run:
        run.record(sample(0))
    with Run(tmp_path, SETTINGS, asked=[0], resume=False) as run:
        assert run.held == 0
        run.record(sample(0, prediction="B"))
    assert [r["prediction"] for r in rows(run)] == ["B"]
    old = list(run.folder.glob("samples-*.jsonl"))
    assert len(old) == 1 and json.loads(old[0].read_text())["prediction"] == "A"


def test_a_changed_sample_replaces_the_old_line(tmp_path: Path) -> None:
    for text in "AB":
        with Run(tmp_path, SETTINGS, asked=[0]) as run:
            run.record(sample(0, prediction=text))
    assert [r["prediction"] for r in rows(run)] == ["B"]


def test_a_second_subset_joins_the_first(tmp_path: Path) -> None:
    for asked in ([0, 1], [2], [0, 1, 2]):
        with Run(tmp_path, SETTINGS, asked=asked) as run:
            for number in asked:
                run.take() if run.stored(number) else run.record(sample(number))
    assert [r["doc_id"] for r in rows(run)] == [0, 1, 2]
    assert about(run)["attempts"][-1]["taken"] == 3


def test_nan_is_null_and_never_zero(tmp_path: Path) -> None:
    with Run(tmp_path, SETTINGS, asked=[0]) as run:
        run.record(sample(0, score=float("nan"), metrics={"a": [float("inf"), 0.5]}))
    assert rows(run)[0]["score"] is None and rows(run)[0]["metrics"] == {"a": [None, 0.5]}

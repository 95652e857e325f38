"""A job's supervisor: workers that die are started again, and given up on where that does not help."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sweeps import supervise as supervising
from sweeps.folder import Folder
from sweeps.settings import Executor
from sweeps.supervise import Outcome, Supervised, supervise
from testbed_jobs import course, events, made_cells, made_job

SCRIPTED = [sys.executable, str(Path(__file__).with_name("scripted_worker.py"))]
METHODS = ("random", "uniform", "full@1")


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "COMMAND", SCRIPTED)


def job(folder: Path, *words: str, **executor: Any) -> str:
    """A job of a cell for each word, which is what its worker does over it."""
    cells = made_cells(*METHODS[: len(words)])
    name = made_job(folder, cells, Executor("local", **executor)).id
    script = dict(zip(METHODS, words, strict=False))
    (folder / "script.json").write_text(json.dumps(script))
    return name


def count(folder: Path, method: str, shard: str = "1-of-1") -> int:
    """How often a cell was begun."""
    return len((folder / f"{method}.{shard}.count").read_text())


def test_workers_share_a_job(tmp_path: Path) -> None:
    name = job(tmp_path, "ok", "ok", workers=2, threads=3)
    assert supervise(Folder(tmp_path), name) == Outcome(done=4, failed=0)
    assert [len(course(tmp_path, name, worker)) for worker in (0, 1)] == [4, 4]
    assert events(tmp_path, name, 1)[0]["shard"] == "2-of-2"
    assert (tmp_path / "log" / f"{name}.1.out").read_text() == "a worker starts, OMP_NUM_THREADS 3\n"


def test_a_death_costs_nothing(tmp_path: Path) -> None:
    name = job(tmp_path, "ok", "die 2", "ok")
    assert supervise(Folder(tmp_path), name) == Outcome(done=3, failed=0)
    assert [count(tmp_path, method) for method in METHODS] == [1, 3, 1]


def test_a_cell_that_always_kills_is_given_up_and_the_others_are_done(tmp_path: Path) -> None:
    name = job(tmp_path, "die", "ok", "ok", retries=2)
    assert supervise(Folder(tmp_path), name) == Outcome(done=2, failed=1)
    assert [count(tmp_path, method) for method in METHODS] == [3, 1, 1], "one start, two retries"
    (failed,) = (event for event in events(tmp_path, name) if event["event"] == "failed")
    assert failed["error"].startswith("WorkerDied: its process was killed by SIGKILL (out of memory?), again and again")
    assert failed["trace"].splitlines()[-1].startswith("a worker starts") and failed["given_up"]


def test_deaths_with_samples_between_them_are_no_reason_to_give_up(tmp_path: Path) -> None:
    name = job(tmp_path, "rows 5", retries=1)
    assert supervise(Folder(tmp_path), name) == Outcome(done=1, failed=0)


def test_but_there_is_an_end_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "DEATHS_FACTOR", 4)
    name = job(tmp_path, "rows 100", retries=1)
    assert supervise(Folder(tmp_path), name) == Outcome(done=0, failed=1)
    assert count(tmp_path, "random") == 4


def test_a_worker_that_does_not_even_start_fails_all_cells(tmp_path: Path) -> None:
    name = job(tmp_path, "ok", "exit", retries=1)
    assert supervise(Folder(tmp_path), name) == Outcome(done=0, failed=2)
    assert [event for event, _ in course(tmp_path, name)] == ["failed", "failed"]
    assert "its process ended with status 7, again and again" in events(tmp_path, name)[0]["error"]


PROGRAM = """
import sys
from pathlib import Path
from sweeps import supervise
supervise.COMMAND, supervise.KILL_AFTER_S = {command!r}, 0.5
print(supervise.Supervised(Path(sys.argv[1]), sys.argv[2], "3")())
"""


def supervisor(folder: Path, name: str, **environment: str) -> "subprocess.Popen[str]":
    """A job's process, once its worker is at work."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(command=SCRIPTED), str(folder), name],
        env={**os.environ, **environment},
        text=True,
        stdout=subprocess.PIPE,
    )
    while not (folder / "hangs").exists():
        assert process.poll() is None
        time.sleep(0.05)
    return process


def children() -> str:
    return subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True).stdout


def test_sigterm_ends_its_workers(tmp_path: Path) -> None:
    process = supervisor(tmp_path, job(tmp_path, "hang"), SLURM_JOB_ID="")
    assert f"{SCRIPTED[1]} {tmp_path}" in children()
    process.terminate()
    assert process.wait(20) == 128 + signal.SIGTERM
    assert f"{SCRIPTED[1]} {tmp_path}" not in children(), "one that does not heed SIGTERM is killed"


@pytest.mark.parametrize(("state", "status"), [("RUNNING", -signal.SIGUSR2), ("COMPLETING", 128 + signal.SIGTERM)])
def test_preemption_with_a_grace_time_is_requeued_and_scancel_is_not(tmp_path: Path, state: str, status: int) -> None:
    """SIGUSR2, which submitit's handler takes for the request to requeue, kills where submitit is not."""
    squeue = tmp_path / "bin" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text(f"#!/bin/sh\necho {state}\n")
    squeue.chmod(0o755)
    path = f"{squeue.parent}:{os.environ['PATH']}"
    process = supervisor(tmp_path, job(tmp_path, "hang"), SLURM_JOB_ID="12", PATH=path)
    process.terminate()
    assert process.wait(20) == status


def test_the_checkpoint_is_the_job_itself(tmp_path: Path) -> None:
    call = Supervised(tmp_path, "a", "0,1")
    assert call.checkpoint().function is call


def test_it_needs_no_torch() -> None:
    """A job's own process stays small."""
    program = "import sweeps.supervise, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0

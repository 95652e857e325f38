"""A sweep on a real Slurm, disturbed in every way that a cluster knows: what it leaves equals an undisturbed run's."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cacovid.runs.files import read_lines
from slurm.cluster import Cluster, wait_until
from slurm.processes import kill

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("slurm")]

VIDEOS = 8  # enough that a job is still at work when it has been disturbed four times
QUESTIONS = 7 * VIDEOS
GRID = ["method=[uniform,visionzip,fastv]", "retention=[0.5,0.25,0.2,0.1]"]
CELLS = 12
SLURM = ["executor=slurm", "executor.timeout_min=9", "executor.cpus_per_task=1", "executor.mem_gb=2"]
"""submitit takes a SIGUSR2 for a time-out from ten minutes before the limit on: here, always."""
TIMES = ("seconds", "written")
"""What may differ between two runs of one sample."""

Rows = dict[tuple[str, int], dict[str, Any]]


def sweep(results: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """`python -m sweeps run` on the first videos of the test bed."""
    task = f"tasks.evidence_vqa.environment.CACOVID_TESTBED_VIDEOS='{VIDEOS}'"
    return subprocess.run(
        [sys.executable, "-m", "sweeps", "run", f"--results={results}", task, "executor.threads=1", *overrides],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )


def succeed(results: Path, *overrides: str) -> None:
    done = sweep(results, *overrides)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{logs(results)}"


def logs(results: Path) -> str:
    """The end of what every job wrote."""
    files = sorted(path for path in (results / "log").glob("*") if path.suffix in (".out", ".err"))
    return "\n".join(f"--- {path.name}\n" + "\n".join(path.read_text().splitlines()[-20:]) for path in files)


def samples(results: Path) -> Rows:
    """All samples by run and document, but for their times. Fails where one is there twice."""
    out: Rows = {}
    for path in (results / "runs").rglob("samples.jsonl"):
        for row in read_lines(path)[0]:
            key = path.parent.name, row["doc_id"]
            assert key not in out, f"twice: {key}"
            out[key] = {name: value for name, value in row.items() if name not in TIMES}
    return out


def slurm_ids(results: Path) -> list[str]:
    """Of the jobs, by shard."""
    shards = {}
    for row in read_lines(results / "submitted.jsonl")[0]:
        shard = json.loads((results / "jobs" / f"{row['job']}.json").read_text())["shard"]["number"]
        shards[shard] = row["slurm"]
    return [shards[number] for number in sorted(shards)]


@dataclass(frozen=True)
class Disturber:
    """Disturbs one job of a sweep in two ways, each while it answers questions; the second ends it."""

    cluster: Cluster
    results: Path
    job: str
    shard: int

    def kill(self) -> None:
        """kill -9 of its worker; of all that runs in the job's step."""
        self._work()
        worker = next(each for each in self.cluster.job_processes(self.job) if "sweeps.worker" in each.cmdline())
        worker.kill()
        worker.wait()
        self._work()
        kill([each for each in self.cluster.job_processes(self.job) if "SLURM_STEP_ID" in each.info["environ"]])
        self._end("FAILED")

    def interrupt(self) -> None:
        """A restart of slurmd; what Slurm sends before the time limit; scancel."""
        self._work()
        self.cluster.stop_node()
        self._work()
        self.cluster.start_node()
        self.cluster.run("scancel", "--signal=USR2", self.job)
        wait_until(self._was_requeued, "the job is requeued", 60, self._explain)
        self._work()
        self.cluster.run("scancel", self.job)
        self._end("CANCELLED")

    def _work(self) -> None:
        """Wait until it has answered one more question."""
        before = self._count()
        wait_until(lambda: self._count() > before, f"shard {self.shard} has a new sample", 240, self._explain)
        assert self._count() < CELLS * QUESTIONS // 2, "it was over before it could be disturbed"

    def _count(self) -> int:
        files = (self.results / "runs" / f"{self.shard + 1}-of-2").glob("*/samples.jsonl")
        return sum(path.read_bytes().count(b"\n") for path in files)

    def _was_requeued(self) -> bool:
        return "Restarts=1 " in self.cluster.run("scontrol", "show", "job", self.job)

    def _end(self, state: str) -> None:
        wait_until(lambda: self.cluster.queue()[self.job] == state, f"the job is {state}", 60, self._explain)

    def _explain(self) -> str:
        return f"{self.cluster.run('squeue', '--states=all')}\n{logs(self.results)}\n{self.cluster.logs()}"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """The same sweep, in one process, without interruption."""
    results = tmp_path_factory.mktemp("undisturbed")
    succeed(results, *GRID, "executor=debug")
    rows = samples(results)
    assert len(rows) == CELLS * QUESTIONS
    assert all(row["failure"] is None for row in rows.values())
    return rows


def test_nothing_is_lost_and_nothing_is_there_twice(cluster: Cluster, undisturbed: Rows, tmp_path: Path) -> None:
    partition = ("scontrol", "update", "PartitionName=low")
    cluster.run(*partition, "State=DOWN")  # no job may be over before somebody watches it
    try:
        succeed(tmp_path, *GRID, *SLURM, "shards=2", "--no-wait")
        first, second = (Disturber(cluster, tmp_path, job, shard) for shard, job in enumerate(slurm_ids(tmp_path)))
        pool = ThreadPoolExecutor()
        disturbances = [pool.submit(first.kill), pool.submit(second.interrupt)]
    finally:
        cluster.run(*partition, "State=UP")
    with pool:
        for disturbance in disturbances:
            disturbance.result()
    assert "this job is timed-out" in logs(tmp_path)
    assert len(samples(tmp_path)) < len(undisturbed)

    succeed(tmp_path, *GRID, *SLURM, "shards=2", "--wait")
    assert samples(tmp_path) == undisturbed


def test_jobs_of_a_launcher_that_died_over_sbatch_are_taken_up(
    cluster: Cluster, undisturbed: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies when Slurm has the jobs and before it has noted them, or given them what they start from."""
    grid = ["method=uniform", "retention=[0.5,0.1]", *SLURM, "shards=2"]
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sbatch").write_text(f'#!/bin/sh\n{shutil.which("sbatch")} --hold "$@"\nkill -9 $PPID\n')
    (programs / "sbatch").chmod(0o755)
    before = cluster.queue().keys()
    results = tmp_path / "results"
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        assert sweep(results, *grid).returncode == -9
    assert not (results / "submitted.jsonl").exists()
    told = sweep(results, *grid)
    assert told.returncode == 0 and "was cut off; 2 of its 2 jobs are in Slurm's queue" in told.stdout, told.stderr
    numbers = slurm_ids(results)
    assert sorted(cluster.queue().keys() - before) == sorted(numbers) and len(numbers) == 2
    cluster.run("scontrol", "release", numbers[0].partition("_")[0])

    def ended() -> bool:
        return {cluster.queue()[number] for number in numbers} == {"COMPLETED"}

    wait_until(ended, "both are over", 300, lambda: f"{cluster.run('squeue', '--states=all')}\n{logs(results)}")
    rows = samples(results)
    assert len(rows) == 2 * QUESTIONS
    assert rows == {key: row for key, row in undisturbed.items() if key in rows}


def test_one_job_with_accounting(accounting_cluster: Cluster, undisturbed: Rows, tmp_path: Path) -> None:
    succeed(tmp_path, "method=uniform", "retention=0.5,0.1", *SLURM, "--wait")
    rows = samples(tmp_path)
    assert len(rows) == 2 * QUESTIONS
    assert rows == {key: row for key, row in undisturbed.items() if key in rows}
    (job,) = slurm_ids(tmp_path)
    ask = ("sacct", "-X", "--noheader", "--parsable2", "--format=JobID,State")
    ended = f"{job}|COMPLETED"
    wait_until(lambda: accounting_cluster.run(*ask).split() == [ended], "sacct knows", 60, accounting_cluster.logs)

"""What jobs meet on a Slurm cluster: the facts that `sweeps` is built on."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import submitit

from slurm.cluster import Cluster, wait_until
from slurm.probe import Probe
from slurm.processes import processes

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("slurm")]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # jobs import the probe


@pytest.fixture
def probe(tmp_path: Path) -> Iterator[Probe]:
    yield Probe(tmp_path)
    (tmp_path / "go").touch()


def executor(folder: Path, **parameters: object) -> submitit.SlurmExecutor:
    """One CPU a job; the partition is `low` unless told otherwise."""
    out = submitit.SlurmExecutor(folder / "log")
    out.update_parameters(**{"time": 5, "cpus_per_task": 1, **parameters})
    return out


def submit(probe: Probe) -> str:
    """The id of a job that has started."""
    job = executor(probe.folder).submit(probe)
    wait_until(lambda: probe.notes == ["start 0"], "the job has started", explain=lambda: job.stderr() or "")
    return job.job_id


def course(probe: Probe) -> list[str]:
    """What it noted but for signals: whether SIGCONT comes before SIGTERM, and how often, is chance."""
    return [note for note in probe.notes if not note.startswith("SIG")]


def finish(cluster: Cluster, probe: Probe, job: str, expected: list[str]) -> None:
    """The job has run the `expected` course so far; let it go, and it ends well."""
    wait_until(lambda: course(probe) == expected, f"its course is {expected}", explain=lambda: f"{probe.notes}")
    (probe.folder / "go").touch()
    wait_until(lambda: cluster.queue()[job] == "COMPLETED", "it is over", explain=lambda: f"{cluster.queue()}")
    assert course(probe) == [*expected, "end"]


def test_an_array_runs_as_many_at_a_time_as_told(cluster: Cluster, tmp_path: Path) -> None:
    probes = [Probe(tmp_path / str(number)) for number in range(3)]
    for probe in probes:
        probe.folder.mkdir()
    jobs = executor(tmp_path, array_parallelism=2).map_array(Probe.__call__, probes)
    array = jobs[0].job_id.split("_")[0]
    wait_until(lambda: probes[0].notes and probes[1].notes, "two run")
    assert [cluster.queue()[f"{array}_{number}"] for number in range(3)] == ["RUNNING", "RUNNING", "PENDING"]
    for probe in probes:
        (probe.folder / "go").touch()
    wait_until(lambda: set(cluster.queue()[f"{array}_{number}"] for number in range(3)) == {"COMPLETED"}, "all ended")
    assert [job.result() for job in jobs] == ["0", "1", "2"]


def test_a_time_out_checkpoints_and_requeues(cluster: Cluster, probe: Probe) -> None:
    job = submit(probe)
    cluster.run("scancel", "--signal=USR2", job)  # as Slurm does `signal_delay_s` before the time limit
    finish(cluster, probe, job, ["start 0", "checkpoint", "end", "start 1"])


def test_scancel_asks_first_and_kills_what_stays(cluster: Cluster, probe: Probe) -> None:
    job = submit(probe)
    cluster.run("scancel", job)
    wait_until(lambda: cluster.queue()[job] == "CANCELLED", "it is over", explain=lambda: f"{cluster.queue()}")
    assert "SIGTERM" in probe.notes
    assert course(probe) == ["start 0"]
    assert not cluster.job_processes(job)


def test_a_job_outlives_slurmd(cluster: Cluster, probe: Probe) -> None:
    job = submit(probe)
    cluster.stop_node()
    cluster.start_node()
    finish(cluster, probe, job, ["start 0"])
    assert probe.notes == ["start 0", "end"]


def test_a_node_that_dies_has_its_jobs_requeued(cluster: Cluster, probe: Probe) -> None:
    job = submit(probe)
    cluster.lose_node()
    cluster.recover_node()
    finish(cluster, probe, job, ["start 0", "start 1"])


def test_preemption_asks_kills_and_requeues_without_a_checkpoint(cluster: Cluster, probe: Probe) -> None:
    job = submit(probe)
    cluster.run("srun", "--partition=high", f"--cpus-per-task={cluster.cpus}", "true")
    finish(cluster, probe, job, ["start 0", "start 1"])
    assert "SIGTERM" in probe.notes


OWNER = """
import os, sys
from pathlib import Path
from slurm.cluster import Cluster, wait_until

with Cluster(Path(sys.argv[1])) as cluster:
    cluster.run("sbatch", "--output=/dev/null", "--wrap=sleep 1000")
    wait_until(lambda: list(cluster.queue().values()) == ["RUNNING"], "the job runs", explain=cluster.logs)
    os.kill(os.getpid(), 9)
"""


def test_nothing_outlives_a_killed_owner(cluster: Cluster) -> None:
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        owner = subprocess.run([sys.executable, "-c", OWNER, folder], capture_output=True, text=True)
        assert owner.returncode == -signal.SIGKILL, owner.stderr
        wait_until(lambda: not processes(Path(folder)), "all ended")
    assert cluster.node_state()  # the one beside it does not mind

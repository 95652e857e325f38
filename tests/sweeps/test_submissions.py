"""A launcher that is killed while it submits: its jobs are found again by their name, can start, and are there once."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from submitit.core.utils import DelayedSubmission

from cacovid.runs.files import read_lines
from sweeps import submissions
from sweeps.commands.line import main
from sweeps.folder import Folder
from sweeps.jobs import Job
from sweeps.launch import launch
from sweeps.live import living
from sweeps.settings import Executor, Store
from sweeps.shards import Shard
from sweeps.slurm import LaunchError
from sweeps.submissions import job_name
from sweeps.supervise import Supervised
from testbed_jobs import HERE, made_cells, write_plan, write_sweep

SLURM = Executor("slurm", timeout_min=30, max_timeouts=7)
SBATCH = """\
name=$(sed -n 's/^#SBATCH --job-name=//p' "$1")
tasks=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")
calls=$(echo $(cat "$0.calls" | wc -l)); echo "$name" >> "$0.calls"
number=$((5 + calls))
for task in $(seq 0 ${tasks:-0}); do echo "$name ${number}_$task" >> "$0.jobs"; done
[ -n "$tasks" ] || sed -i "s/ ${number}_0$/ $number/" "$0.jobs"
"""
"""`sbatch.jobs` beside the program holds the names and numbers of all jobs, `sbatch.calls` a line for each call."""
SQUEUE = """\
jobs=$(dirname "$0")/sbatch.jobs
for word; do case "$word" in --name=*) sed -n "s/^${word#--name=} //p" "$jobs"; exit;; esac; done
sed 's/^[^ ]* \\(.*\\)/\\1 PENDING Priority/' "$jobs"
"""
SUBMIT = """
import sys
from pathlib import Path
from sweeps.folder import Folder
from sweeps.settings import Executor
from sweeps.slurm import submit

path, *jobs = sys.argv[1:]
submit(Folder(Path(path)), jobs, Executor("slurm", timeout_min=30, max_timeouts=7), Path(path, "code", "c"))
"""
"""What `launch` does once the jobs' plans are written."""


class Slurm:
    """Programs of Slurm's names in a folder on PATH."""

    def __init__(self, bin: Path) -> None:
        bin.mkdir()
        self.bin = bin
        (bin / "sbatch.jobs").touch()
        (bin / "sbatch.calls").touch()
        self.write("srun", "")
        self.write("squeue", SQUEUE)
        self.sbatch()

    def write(self, name: str, body: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{body}\n")
        (self.bin / name).chmod(0o755)

    def sbatch(self, ends: str = 'echo "Submitted batch job $number"') -> None:
        self.write("sbatch", SBATCH + ends)

    @property
    def calls(self) -> list[str]:
        """Names under which something was submitted."""
        return (self.bin / "sbatch.calls").read_text().split()

    def over(self, number: str) -> None:
        """The job leaves the queue."""
        path = self.bin / "sbatch.jobs"
        path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines() if line.split()[1] != number))


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    out = Slurm(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{out.bin}:{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return out


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "my sweep")


def jobs(folder: Folder, shards: int = 3) -> list[Job]:
    cells = made_cells("random")
    write_sweep(folder.path, cells)
    return [Job(cells, Shard(k, shards), Store(), SLURM) for k in range(shards)]


def killed(slurm: Slurm, folder: Folder, some: list[Job]) -> None:
    """Launch them in a process that does not outlive its sbatch."""
    for job in some:
        write_plan(folder.path, job.to_json())
    (folder.code / "c").mkdir(parents=True)
    folder.log.mkdir()
    slurm.sbatch("kill -9 $PPID")
    command = [sys.executable, "-c", SUBMIT, str(folder.path), *(job.id for job in some)]
    done = subprocess.run(command, text=True, capture_output=True)
    assert done.returncode == -9, done.stderr
    slurm.sbatch()


def numbers(folder: Folder) -> dict[str, str]:
    """Slurm id of each job's last submission."""
    return {row["job"]: row["slurm"] for row in read_lines(folder.path / "submitted.jsonl")[0]}


def intents(folder: Folder) -> list[Path]:
    return list(folder.submitting("").parent.glob("*"))


@pytest.mark.parametrize(("shards", "expected"), [(3, ["5_0", "5_1", "5_2"]), (1, ["5"])])
def test_jobs_of_a_killed_launcher_are_found(
    slurm: Slurm, folder: Folder, capsys: pytest.CaptureFixture[str], shards: int, expected: list[str]
) -> None:
    some = jobs(folder, shards)
    killed(slurm, folder, some)
    (name,) = slurm.calls
    assert name.startswith("my-sweep-") and not numbers(folder)
    assert set(living(folder)) == {job.id for job in some}, "they may be in the queue"
    assert launch(folder, some, SLURM, wait=False) == 0
    assert slurm.calls == [name] and not intents(folder)
    assert numbers(folder) == {job.id: number for job, number in zip(some, expected, strict=True)}
    told = f"submission {name} was cut off; {shards} of its {shards} jobs are in Slurm's queue"
    assert told in capsys.readouterr().out
    for job, number in zip(some, expected, strict=True):
        call = DelayedSubmission.load(folder.log / f"{number}_submitted.pkl")
        assert call.function == Supervised(folder.path, job.id)
        assert (call._timeout_min, call._timeout_countdown) == (SLURM.timeout_min, SLURM.max_timeouts)


def test_what_is_over_is_submitted_again(slurm: Slurm, folder: Folder) -> None:
    some = jobs(folder)
    killed(slurm, folder, some)
    slurm.over("5_1")
    launch(folder, some, SLURM, wait=False)
    assert numbers(folder) == {some[0].id: "5_0", some[1].id: "6", some[2].id: "5_2"}


def test_a_launcher_killed_while_it_notes_them(slurm: Slurm, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """No job is noted twice, and what submitit wrote stays."""
    some = jobs(folder)
    note = submissions.note_submission
    left = [2]

    def die(*words: object, **more: object) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        note(*words, **more)

    monkeypatch.setattr("sweeps.slurm.note_submission", die)
    assert launch(folder, some, SLURM, wait=False) == 130
    pickles = {path: path.stat().st_mtime_ns for path in folder.log.glob("*_submitted.pkl")}
    assert len(numbers(folder)) == 2 and len(pickles) == 3
    launch(folder, some, SLURM, wait=False)
    rows = read_lines(folder.path / "submitted.jsonl")[0]
    assert [row["slurm"] for row in rows] == ["5_0", "5_1", "5_2"] and len(slurm.calls) == 1
    assert {path: path.stat().st_mtime_ns for path in pickles} == pickles


def forge(folder: Folder, some: list[Job], *, age: float, over: bool) -> str:
    """The file of a submission that was cut off `age` seconds ago, before its jobs were in the queue."""
    name, time = job_name(folder), datetime.now(UTC) - timedelta(seconds=age)
    path = folder.submitting(name)
    path.parent.mkdir(parents=True)
    row = {"jobs": [job.id for job in some], "code": "c", "time": time.isoformat(), "over": over}
    path.write_text(json.dumps(row))
    for job in some:
        write_plan(folder.path, job.to_json())
    folder.log.mkdir()
    return name


def test_an_sbatch_that_may_be_at_work_is_waited_for(
    slurm: Slurm, folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    some = jobs(folder)
    name = forge(folder, some, age=12, over=False)
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            (slurm.bin / "sbatch.jobs").write_text("".join(f"{name} 9_{k}\n" for k in range(3)))

    monkeypatch.setattr(submissions, "time", SimpleNamespace(sleep=sleep))
    launch(folder, some, SLURM, wait=False)
    assert len(naps) == 3 and not slurm.calls
    assert sorted(numbers(folder).values()) == ["9_0", "9_1", "9_2"]
    assert f"submission {name} was cut off 12 s ago; its jobs are waited for until it is 60" in capsys.readouterr().out


@pytest.mark.parametrize(("age", "over"), [(61, False), (1, True)])
def test_one_that_never_reached_the_queue_is_made_again(
    slurm: Slurm, folder: Folder, monkeypatch: pytest.MonkeyPatch, age: float, over: bool
) -> None:
    some = jobs(folder)
    forge(folder, some, age=age, over=over)
    monkeypatch.setattr(submissions, "time", None)
    launch(folder, some, SLURM, wait=False)
    assert len(slurm.calls) == 1 and sorted(numbers(folder).values()) == ["5_0", "5_1", "5_2"]
    assert not intents(folder)


def test_an_sbatch_that_fails_although_the_jobs_are_queued(slurm: Slurm, folder: Folder) -> None:
    """Socket timed out: the controller took them, and answered late."""
    some = jobs(folder)
    slurm.sbatch("echo 'sbatch: error: Batch job submission failed: Socket timed out' >&2; exit 1")
    with pytest.raises(LaunchError, match="Socket timed out"):
        launch(folder, some, SLURM, wait=False)
    slurm.sbatch()
    launch(folder, some, SLURM, wait=False)
    assert len(slurm.calls) == 1 and sorted(numbers(folder).values()) == ["5_0", "5_1", "5_2"]


def test_without_squeue_it_says_so_and_goes_on(
    slurm: Slurm, folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    some = jobs(folder)
    name = forge(folder, some, age=99, over=False)
    slurm.write("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    worked: list[str] = []
    monkeypatch.setattr("sweeps.launch._run_here", lambda _, names: worked.extend(names))
    launch(folder, [replace(job, executor=HERE) for job in some], HERE, wait=True)
    assert worked == [job.id for job in some]
    told = capsys.readouterr().err
    assert f"submission {name} was cut off, and it is not known whether its jobs are in Slurm's queue" in told
    assert "Unable to contact slurm controller" in told and "costs time and no sample" in told
    assert [path.stem for path in intents(folder)] == [name], "it is looked for again"


def test_a_sweep_without_open_jobs_takes_them_up_too(slurm: Slurm, folder: Folder) -> None:
    some = jobs(folder)
    forge(folder, some, age=99, over=False)
    assert launch(folder, [], SLURM, wait=False) == 0
    assert not intents(folder) and not slurm.calls and not list(living(folder))


def test_code_of_jobs_in_the_queue_stays(slurm: Slurm, folder: Folder) -> None:
    """Also of those whose launcher was killed; other snapshots go while jobs live."""
    some = jobs(folder)
    name = forge(folder, some, age=99, over=False)
    (slurm.bin / "sbatch.jobs").write_text("".join(f"{name} 5_{k}\n" for k in range(3)))
    used = folder.code / "c"
    for path in (used, folder.code / "other"):
        path.mkdir(parents=True)
    assert main(["clean", str(folder.path), "--code", "--yes"]) == 0
    assert list(folder.code.iterdir()) == [used]
    assert launch(folder, some, SLURM, wait=False) == 0 and not slurm.calls
    assert {row["code"] for row in read_lines(folder.path / "submitted.jsonl")[0]} == {used.name}
    (folder.code / "other").mkdir()
    assert main(["clean", str(folder.path), "--code", "--yes"]) == 0
    assert list(folder.code.iterdir()) == [used]
    for number in ("5_0", "5_1", "5_2"):
        slurm.over(number)
    assert main(["clean", str(folder.path), "--code", "--yes"]) == 0
    assert not list(folder.code.iterdir())

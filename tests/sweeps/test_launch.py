"""Jobs handed to an executor: options, what is at work already, the code that they run, and Slurm's words."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cacovid.runs.files import Journal, read_lines
from cacovid.runs.source import source_sha256
from sweeps import launch as launching
from sweeps import snapshot as copying
from sweeps.cells import Cell
from sweeps.folder import Folder
from sweeps.jobs import Job
from sweeps.journal import note, note_submission
from sweeps.launch import check, launch
from sweeps.live import QueueError
from sweeps.sbatch import script
from sweeps.settings import ConfigError, Executor, Store
from sweeps.shards import Shard
from sweeps.slurm import LaunchError
from sweeps.snapshot import environment, snapshot
from testbed_jobs import HERE, made_cells, write_plan, write_sweep

SLURM = Executor("slurm", timeout_min=30)


@pytest.mark.parametrize(
    ("executor", "words"),
    [
        (Executor("debug", parallel=2), "executor debug has no use for parallel; it takes retries, threads"),
        (Executor("local", partition="gpu", setup=["x"]), "executor local has no use for partition, setup; it takes"),
        (Executor("slurm"), "executor slurm needs executor.timeout_min"),
        (Executor("slurm", timeout_min=9, extra={"job-name": "x"}), "extra job-name: jobs are found again by"),
        (Executor("local", workers=0), "executor.workers=0, expected at least 1"),
        (Executor("debug", retries=0), "executor.retries=0, expected at least 1"),
    ],
)
def test_options_that_cannot_be(executor: Executor, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check(executor)


def jobs(folder: Path, *methods: str, executor: Executor = HERE, shards: int = 1) -> list[Job]:
    cells = made_cells(*methods)
    write_sweep(folder, cells)
    return [Job(cells, Shard(k, shards), Store(), executor) for k in range(shards)]


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Cells (by label) that the debug executor got, job by job; all of them are done, but for `uniform`."""
    seen: list[list[str]] = []

    def work(folder: Folder, names: list[str]) -> None:
        for name in names:
            job = Job.from_json(launching.json.loads(folder.job(name).read_text()))
            seen.append([cell.label for cell in job.cells])
            finish(folder, job, [cell for cell in job.cells if cell.method != "uniform"])

    monkeypatch.setattr(launching, "_run_here", work)
    return seen


def finish(folder: Folder, job: Job, cells: list[Cell]) -> None:
    folder.events(job.id, 0).parent.mkdir(exist_ok=True)
    journal = Journal(folder.events(job.id, 0))
    for cell in cells:
        note(journal, "done", cell.id, job.shard.name, run=None, counts={}, reasons={}, metrics={}, seconds=1.0)
    journal.close()


def test_the_exit_status_is_that_of_the_cells(
    tmp_path: Path, worked: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch(Folder(tmp_path), jobs(tmp_path, "random", "full@1"), HERE, wait=True) == 0
    (unfinished,) = jobs(tmp_path, "random", "uniform")
    assert launch(Folder(tmp_path), [unfinished], HERE, wait=True) == 1
    assert f"jobs that ended before their cells did: {unfinished.id}; see" in capsys.readouterr().err


def test_ctrl_c_and_sigterm_say_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launching, "_run_here", lambda *_: os.kill(os.getpid(), launching.signal.SIGTERM))
    assert launch(Folder(tmp_path), jobs(tmp_path, "random"), HERE, wait=True) == 130
    assert "interrupted; finished samples are kept. Run the same command again" in capsys.readouterr().err


def test_cells_of_living_jobs_are_left_to_them(
    tmp_path: Path, worked: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    (earlier,) = jobs(tmp_path, "random", "uniform")
    write_plan(tmp_path, earlier.to_json())
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    note_submission(Folder(tmp_path), earlier.id, "local", pid=child.pid, code="c")
    assert launch(Folder(tmp_path), jobs(tmp_path, "random", "full@1"), HERE, wait=True) == 0
    assert worked == [["full@1"]]
    assert f"1 cells are left to jobs that are queued or running: {earlier.id}" in capsys.readouterr().out

    child.communicate(b"\n")
    launch(Folder(tmp_path), jobs(tmp_path, "random", "full@1"), HERE, wait=True)
    assert worked[1:] == [["random", "full@1"]], "its process is gone"


def test_a_process_of_another_job_with_the_same_number_does_not_count(tmp_path: Path, worked: list[list[str]]) -> None:
    (earlier,) = jobs(tmp_path, "random")
    write_plan(tmp_path, earlier.to_json())
    note_submission(Folder(tmp_path), earlier.id, "local", pid=os.getpid(), code="c")
    path = tmp_path / "submitted.jsonl"
    path.write_text(path.read_text().replace('"time": "2', '"time": "1'))  # a thousand years ago
    launch(Folder(tmp_path), jobs(tmp_path, "random"), HERE, wait=True)
    assert worked == [["random"]]


def test_only_shards_that_overlap_are_left_out(tmp_path: Path, worked: list[list[str]]) -> None:
    first, second = jobs(tmp_path, "random", shards=2)
    write_plan(tmp_path, first.to_json())
    note_submission(Folder(tmp_path), first.id, "local", pid=os.getpid(), code="c")
    launch(Folder(tmp_path), [first, second, replace(first, shard=Shard(2, 4))], HERE, wait=True)
    assert len(worked) == 2


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of programs with Slurm's names; `queue` in it is what squeue prints."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, body in [("sbatch", "echo Submitted batch job 5"), ("srun", ""), ("squeue", f"cat {programs}/queue")]:
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    (programs / "queue").touch()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    yield programs


def test_slurm_gets_one_array_and_nothing_twice(
    tmp_path: Path, cluster: Path, worked: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Folder(tmp_path / "sweep")
    three = jobs(folder.path, "random", shards=3)
    assert launch(folder, three, SLURM, wait=False) == 0
    rows = read_lines(folder.path / "submitted.jsonl")[0]
    (code,) = folder.code.iterdir()
    assert [(row["job"], row["executor"], row["slurm"], row["pid"], row["code"]) for row in rows] == [
        (job.id, "slurm", f"5_{k}", None, code.name) for k, job in enumerate(three)
    ]
    (sbatch,) = folder.log.glob("*_submission.sh")
    assert "#SBATCH --array=0-2%1" in sbatch.read_text()

    (cluster / "queue").write_text("5_0 PENDING Priority\n5_2 RUNNING None\n7_1 RUNNING None\n")
    launch(folder, jobs(folder.path, "random", shards=3), HERE, wait=True)
    assert len(worked) == 1, "the one that is no longer in the queue"

    (cluster / "squeue").write_text("#!/bin/sh\necho slurm_load_jobs error >&2\nexit 1\n")
    with pytest.raises(QueueError, match="squeue does not say which jobs are still queued: slurm_load_jobs error"):
        launch(folder, jobs(folder.path, "random"), HERE, wait=True)


def test_what_slurm_refuses_is_told_in_its_words(
    tmp_path: Path, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cluster / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: x' >&2\nexit 1\n")
    folder = Folder(tmp_path / "sweep")
    with pytest.raises(LaunchError, match=r"sbatch refused the jobs: sbatch: error: invalid partition specified: x"):
        launch(folder, jobs(folder.path, "random"), replace(SLURM, partition="x"), wait=False)
    assert not (folder.path / "submitted.jsonl").exists()

    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LaunchError, match="no sbatch, srun, squeue on PATH; run this on a login node"):
        launch(folder, jobs(folder.path, "random"), SLURM, wait=False)


def test_every_option_is_in_the_sbatch_script(tmp_path: Path) -> None:
    executor = Executor(
        "slurm",
        parallel=7,
        timeout_min=90,
        partition="gpu",
        account="lab",
        qos="high",
        gres="gpu:a100:2",
        gpus_per_node=2,
        cpus_per_task=8,
        mem_gb=1.5,
        constraint="80g",
        setup=["module load cuda"],
        signal_delay_s=60,
        extra={"mail-type": "END"},
    )
    lines = script(executor, Folder(tmp_path / "mine"), 20).splitlines()
    for option in [
        "array=0-19%7",
        "time=90",
        "partition=gpu",
        "account=lab",
        "qos=high",
        "gres=gpu:a100:2",
        "gpus-per-node=2",
        "cpus-per-task=8",
        "mem=1536MB",
        "constraint=80g",
        "signal=USR2@60",
        "mail-type=END",
        "job-name=mine-SUBMISSION",
    ]:
        assert f"#SBATCH --{option}" in lines
    setup = lines.index("module load cuda")
    assert lines[setup + 1].startswith(f"export PYTHONPATH={tmp_path}/mine/code/"), "whatever the user's lines set"
    assert lines[setup + 2] == "export PYTHONSAFEPATH=1"


def test_local_jobs_share_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    from sweeps.processes import _devices

    def places(given: str, **executor: Any) -> list[str | None]:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        return [_devices(place, Executor("local", **executor)) for place in range(executor["parallel"])]

    assert places("0,1,2,3", parallel=2, workers=2) == ["0,1", "2,3"]
    assert places("5", parallel=2) == ["5", "5"]
    assert places("", parallel=2) == [None, None]


def test_jobs_run_the_code_of_their_submission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkout (a copy of it) is changed after the snapshot; a job, even in its folder, runs the snapshot."""
    checkout = tmp_path / "checkout"
    for name in copying.PACKAGES:
        skipped = copying.shutil.ignore_patterns("__pycache__", "*.safetensors")
        copying.shutil.copytree(copying._root(name), checkout / name, ignore=skipped)
    monkeypatch.setattr(copying, "_root", lambda name: checkout / name)
    folder = Folder(tmp_path / "sweep")
    code = snapshot(folder)
    assert snapshot(folder) == code and len(list(folder.code.iterdir())) == 1
    changed = checkout / "baselines" / "random.py"
    changed.write_text(changed.read_text() + "\nTIMES = 2\n")
    assert snapshot(folder) != code

    modules = ["cacovid.lmms.model", "baselines.random"]
    program = (
        "import baselines, sweeps; from cacovid.runs.source import source_sha256\n"
        f"print(baselines.__file__, sweeps.__file__, source_sha256({modules}))"
    )
    out = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment(code)},
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert out == [f"{code}/baselines/__init__.py", f"{code}/sweeps/__init__.py", source_sha256(modules)]


def test_a_snapshot_knows_its_commit(tmp_path: Path) -> None:
    from cacovid.runs.provenance import git_state

    assert git_state(snapshot(Folder(tmp_path)) / "cacovid") == git_state(copying._root("cacovid"))

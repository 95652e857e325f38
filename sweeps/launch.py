"""Hand jobs to an executor: this process, processes on this machine, or Slurm."""

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Any, NoReturn

from cacovid.runs.files import read_lines, write_json
from sweeps import processes, slurm
from sweeps.folder import CellState, Folder, states, stretch
from sweeps.jobs import Job
from sweeps.journal import now
from sweeps.live import FRESH, breathes, queue
from sweeps.settings import ConfigError, Executor
from sweeps.shards import Shard
from sweeps.snapshot import snapshot
from sweeps.submissions import take_up

_ALWAYS = {"kind", "threads", "retries"}
USED = {
    "debug": _ALWAYS,
    "local": _ALWAYS | {"parallel", "workers"},
    "slurm": {field.name for field in fields(Executor)},
}
"""Options that each kind of executor has a use for."""


def launch(folder: Folder, jobs: list[Job], executor: Executor, *, wait: bool) -> int:
    """Run or submit `jobs`, but for cells that jobs of an earlier call are still at. Without any, submissions that were
    cut off are looked after all the same.

    Args:
        wait: stay until Slurm has ended them; jobs on this machine are waited for in any case.

    Returns the exit status: 0 all done (or submitted), 1 something failed, 130 interrupted. Raises ConfigError for
    options that the executor cannot use, LaunchError for jobs that Slurm refuses, QueueError where it does not answer.
    """
    check(executor)
    folder = Folder(folder.path.resolve())
    take_up(folder)
    jobs = [replace(job, executor=executor) for job in _without_live(folder, jobs)]
    if not jobs:
        return 0
    folder.log.mkdir(parents=True, exist_ok=True)
    for job in jobs:
        folder.job(job.id).parent.mkdir(exist_ok=True)
        write_json(folder.job(job.id), {**job.to_json(), "submitted": now()})
    names = [job.id for job in jobs]
    try:
        with _termination_is_interruption():
            if executor.kind == "debug":
                _run_here(folder, names)
            elif executor.kind == "local":
                processes.run(folder, names, executor, snapshot(folder))
            else:
                queued = slurm.submit(folder, names, executor, snapshot(folder))
                print(f"{len(queued)} jobs are in Slurm's queue: {queued[0]} to {queued[-1]}")
                if not wait:
                    return 0
                slurm.wait(folder, queued)
    except KeyboardInterrupt:
        what = "its jobs go on in Slurm" if executor.kind == "slurm" else "finished samples are kept"
        print(f"interrupted; {what}. Run the same command again to go on from here", file=sys.stderr)
        return 130
    return _outcome(folder, jobs)


def check(executor: Executor) -> None:
    """Raises ConfigError for a number that cannot be, and for an option that this kind has no use for."""
    for name in ("parallel", "workers", "retries", "threads", "timeout_min"):
        value = getattr(executor, name)
        if value is not None and value < 1:
            raise ConfigError(f"executor.{name}={value}, expected at least 1")
    plain = asdict(Executor(executor.kind))
    given = {name for name, value in asdict(executor).items() if value != plain[name]}
    if unused := sorted(given - USED[executor.kind]):
        raise ConfigError(
            f"executor {executor.kind} has no use for {', '.join(unused)}; it takes "
            f"{', '.join(sorted(USED[executor.kind] - {'kind'}))}"
        )
    if renamed := sorted({"job-name", "job_name", "J"} & executor.extra.keys()):
        raise ConfigError(
            f"executor.extra {renamed[0]}: jobs are found again by their name; it begins with the results folder's, "
            f"which --results or name= sets"
        )
    if executor.kind == "slurm" and executor.timeout_min is None:
        raise ConfigError(
            "executor slurm needs executor.timeout_min: the minutes after which a job is queued again and goes on"
        )


def _run_here(folder: Folder, jobs: list[str]) -> None:
    from sweeps.worker import work

    for job in jobs:
        work(folder, job)


def _without_live(folder: Folder, jobs: list[Job]) -> list[Job]:
    """`jobs` without the cells of jobs that are queued or running."""
    taken: dict[str, list[str]] = {}  # cell -> shards
    live = _live_jobs(folder) if jobs else {}
    for plan in live.values():
        for cell in plan["cells"]:
            taken.setdefault(cell["id"], []).append(Shard(**plan["shard"]).name)
    left = [
        replace(job, cells=[c for c in job.cells if not any(_overlap(job.shard.name, s) for s in taken.get(c.id, ()))])
        for job in jobs
    ]
    if skipped := sum(len(job.cells) for job in jobs) - sum(len(job.cells) for job in left):
        print(f"{skipped} cells are left to jobs that are queued or running: {', '.join(sorted(live))}")
    return [job for job in left if job.cells]


def _overlap(one: str, other: str) -> bool:
    (start, end), (first, last) = stretch(one), stretch(other)
    return start < last and first < end


def _live_jobs(folder: Folder) -> dict[str, dict[str, Any]]:
    """Jobs of earlier calls that are not over, with their plans. Raises QueueError where Slurm does not answer."""
    rows = {row["job"]: row for row in read_lines(folder.path / "submitted.jsonl")[0]}
    plans = {name: json.loads(folder.job(name).read_text()) for name in rows}
    known = states(folder.read_events())
    open_rows = [row for name, row in rows.items() if not _covered(known, plans[name])]
    waiting = queue() if any(row["slurm"] for row in open_rows) else {}
    live = [row["job"] for row in open_rows if (row["slurm"] in waiting if row["slurm"] else _runs(folder, row))]
    return {name: plans[name] for name in live}


def _runs(folder: Folder, row: dict[str, Any]) -> bool:
    """Whether a job that was started as a process is at work: its process is there and, as numbers are given anew,
    one of its workers lives, or it is so young that none may yet."""
    if row["host"] == socket.gethostname():
        try:
            os.kill(row["pid"], 0)
        except (ProcessLookupError, PermissionError):
            return False
    young = datetime.now(UTC) - datetime.fromisoformat(row["time"]) < timedelta(seconds=FRESH)
    return young or any(map(breathes, folder.path.glob(f"events/{row['job']}.*.alive")))


def _covered(known: dict[str, CellState], plan: dict[str, Any]) -> bool:
    shard = Shard(**plan["shard"]).name
    return all(known.get(cell["id"], CellState()).covers(shard) for cell in plan["cells"])


def _outcome(folder: Folder, jobs: list[Job]) -> int:
    known = states(folder.read_events())
    unfinished = [job for job in jobs if not _covered(known, job.to_json())]
    if lost := [job.id for job in unfinished if not any(known.get(c.id, CellState()).failed for c in job.cells)]:
        print(f"jobs that ended before their cells did: {', '.join(lost)}; see {folder.log}", file=sys.stderr)
    return 1 if unfinished else 0


@contextmanager
def _termination_is_interruption() -> Iterator[None]:
    """Within the block SIGTERM does what Ctrl-C does: children are ended, and how to go on is said."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

"""What is at work in a sweep's folder: workers by their alive files, jobs by what the queue and the system say."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cacovid.runs.files import read_lines
from sweeps.folder import Folder

FRESH = 60.0
"""Seconds since its alive file was touched within which a worker counts as living."""


def breathes(path: Path) -> bool:
    """Whether an alive file was touched just now. Clocks of shared file systems may run ahead."""
    try:
        return time.time() - path.stat().st_mtime < FRESH
    except FileNotFoundError:
        return False


class QueueError(RuntimeError):
    """Slurm does not tell its jobs."""


@dataclass(frozen=True)
class Submitted:
    """A row of submitted.jsonl, with what is known of it now."""

    row: dict[str, Any]
    state: str | None  # Slurm's word, e.g. PENDING; for a process RUNNING; None: ended, or not to be seen from here
    reason: str | None = None  # Slurm's, why it is pending


def submitted(folder: Folder) -> list[Submitted]:
    """The last submission of every job. Raises QueueError where Slurm has some and does not answer."""
    rows = {row["job"]: row for row in read_lines(folder.path / "submitted.jsonl")[0]}
    waiting = queue() if any(row["slurm"] for row in rows.values()) else {}
    return [
        Submitted(row, *waiting.get(row["slurm"], (None,)) if row["slurm"] else (_process(row),))
        for row in rows.values()
    ]


def living(folder: Folder) -> Iterator[str]:
    """Jobs that are queued or at work. Raises QueueError."""
    yield from (some.row["job"] for some in submitted(folder) if some.state)
    for intent in cut_off(folder):
        yield from intent["jobs"]  # they may be in the queue
    for path in (folder.path / "events").glob("*.alive"):
        if breathes(path):
            yield path.name.partition(".")[0]


def cut_off(folder: Folder) -> list[dict[str, Any]]:
    """Submissions to Slurm of which it is not known what became of them: `submitting/<name>.json`."""
    return [json.loads(path.read_bytes()) for path in sorted(folder.submitting("").parent.glob("*.json"))]


def queue() -> dict[str, tuple[str, str]]:
    """Slurm id, e.g. 123_4, -> state and reason, of this user's jobs that are not over. Raises QueueError without an
    answer.

    The reason tells a job that will never start, such as PartitionTimeLimit, from one that waits for its turn.

    `sacct` would tell more, but fails on clusters without accounting.
    """
    rows = (line.split(None, 2) for line in _squeue("--format=%i %T %r"))
    return {number: (state, reason) for number, state, reason in rows}


def named(name: str) -> dict[int, str]:
    """Place in its array -> Slurm id of this user's jobs of that name that are not over. Raises QueueError."""
    numbers = (line.strip() for line in _squeue(f"--name={name}", "--format=%i"))
    return {int(number.partition("_")[2] or 0): number for number in numbers}  # a job alone is no array


def _squeue(*options: str) -> list[str]:
    command = ["squeue", "--me", "--noheader", "--array", *options]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError) as error:
        words = (getattr(error, "stderr", None) or str(error)).strip()
        raise QueueError(f"squeue does not say which jobs are still queued: {words}; try again later") from error


def _process(row: dict[str, Any]) -> str | None:
    if row["pid"] is None or row["host"] != socket.gethostname():
        return None
    try:
        os.kill(row["pid"], 0)
    except (ProcessLookupError, PermissionError):  # or another user's: the number was given anew
        return None
    return "RUNNING"

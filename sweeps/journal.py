"""Lines of a worker's journal, as `sweeps.folder` describes them, and of submitted.jsonl. Read without torch."""

import socket
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from cacovid.runs.files import Journal, write_errors
from sweeps.folder import Folder


def now() -> str:
    """UTC time with microseconds, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def note(journal: Journal, event: str, cell: str, shard: str, **rest: Any) -> None:
    """Append one event; it is on disk when this returns. Raises RunWriteError."""
    with write_errors(journal.path, "finished samples are kept"):
        journal.append({"event": event, "cell": cell, "shard": shard, "time": now(), **rest})


def note_submission(
    folder: Folder, job: str, executor: str, *, code: str, slurm: str | None = None, pid: int | None = None
) -> None:
    """Say in submitted.jsonl where a job is to be looked for, and which code it runs. Raises RunWriteError."""
    where = {"job": job, "executor": executor, "slurm": slurm, "pid": pid, "host": socket.gethostname()}
    row = {**where, "time": now(), "code": code}
    path = folder.path / "submitted.jsonl"
    with write_errors(path, "the job was started"), closing(Journal(path)) as journal:
        journal.append(row)

"""Submissions to Slurm that were cut off before they were noted: found again by their name, so no job is there twice.

Before sbatch is called, submitting/<name>.json says which jobs the array is made of; it goes once all of them are in
submitted.jsonl. One that a later call finds was cut off, and only the queue knows whether its jobs are in it.
"""

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from submitit.core.utils import DelayedSubmission, JobPaths

from cacovid.runs.files import read_lines, write_errors, write_json
from sweeps.folder import Folder
from sweeps.journal import note_submission, now
from sweeps.live import QueueError, named
from sweeps.supervise import Supervised

SBATCH_S = 60.0
"""For how long an sbatch may be at work whose parent was killed."""
_POLL_S = 2.0


def job_name(folder: Folder, ending: str | None = None) -> str:
    """The sweep's name, with an ending that no other submission has."""
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '-', folder.path.name)}-{ending or uuid4().hex[:8]}"


@contextmanager
def submitting(folder: Folder, name: str, jobs: list[str], code: Path) -> Iterator[None]:
    """sbatch is called, and its jobs are noted, in the block. Raises RunWriteError before anything is submitted.

    A block that raises leaves the file: sbatch fails, too, where the controller took the jobs and answered late.
    """
    path = folder.submitting(name)
    intent = {"jobs": jobs, "code": code.name, "time": now()}
    with write_errors(path, "nothing was submitted"):
        path.parent.mkdir(exist_ok=True)
        write_json(path, {**intent, "over": False})
    try:
        yield
    except Exception:
        with write_errors(path, "nothing was submitted"):
            write_json(path, {**intent, "over": True})
        raise
    path.unlink()


def take_up(folder: Folder) -> None:
    """Note the jobs of cut-off submissions that are in Slurm's queue, and see that they can start.

    Where squeue does not answer this is said, and the submission stays to be looked for by the next call.
    """
    for path in sorted(folder.submitting("").parent.glob("*.json")):
        name, intent = path.stem, json.loads(path.read_bytes())
        try:
            found = _look(name, intent)
        except QueueError as error:
            print(
                f"submission {name} was cut off, and it is not known whether its jobs are in Slurm's queue: {error}. "
                f"Going on without them: should they be there, jobs are started twice, which costs time and no sample",
                file=sys.stderr,
            )
            continue
        known = {row["slurm"] for row in read_lines(folder.path / "submitted.jsonl")[0]}
        for index, number in sorted(found.items()):
            job = intent["jobs"][index]
            _let_start(folder, job, number)
            if number not in known:
                note_submission(folder, job, "slurm", slurm=number, code=intent["code"])
        if found:
            print(f"submission {name} was cut off; {len(found)} of its {len(intent['jobs'])} jobs are in Slurm's queue")
        path.unlink()


def _look(name: str, intent: dict[str, Any]) -> dict[int, str]:
    """Slurm ids by place in the array. While nothing is there its sbatch, if it may be at work, is waited for."""
    told = False
    while not (found := named(name)):
        age = (datetime.now(UTC) - datetime.fromisoformat(intent["time"])).total_seconds()
        if intent["over"] or age > SBATCH_S:
            return {}
        if not told:
            print(f"submission {name} was cut off {age:.0f} s ago; its jobs are waited for until it is {SBATCH_S:.0f}")
            told = True
        time.sleep(_POLL_S)
    return found


def _let_start(folder: Folder, job: str, number: str) -> None:
    """Write what submitit puts beside a job once sbatch has told its number, unless it is there."""
    path = JobPaths(folder.log, job_id=number).submitted_pickle
    if path.exists():
        return
    executor = json.loads(folder.job(job).read_bytes())["executor"]
    call = DelayedSubmission(Supervised(folder.path, job))
    call.set_timeout(executor["timeout_min"], executor["max_timeouts"])
    part = path.with_name(f"{path.name}.part")
    call.dump(part)  # a job that runs already waits for this file, and reads it as soon as it is there
    part.rename(path)

"""A job's processes: started, started again when they die, and given up on where that does not help. Without torch."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from submitit.helpers import DelayedSubmission

from cacovid.runs.files import Journal, read_lines
from sweeps.folder import CellState, Folder, states
from sweeps.journal import note, now
from sweeps.shards import Shard

COMMAND = [sys.executable, "-P", "-m", "sweeps.worker"]
"""Of a worker, but for its arguments. -P keeps the working directory out of where modules are looked for."""
KILL_AFTER_S = 10.0
"""Between SIGTERM and SIGKILL."""
DEATHS_FACTOR = 10
"""A cell over which a worker died `retries` times this often is given up on, even if samples come in between: each
document that kills takes three deaths until it is quarantined."""
_POLL_S = 0.2
_TAIL = 20  # lines of the log


@dataclass(frozen=True)
class Outcome:
    """Shares of cells (one for each worker) that are done, and that are not."""

    done: int
    failed: int


def supervise(folder: Folder, job_id: str) -> Outcome:
    """Run a job's workers until all that can be done is.

    They end with this call, however it ends, and it ends when the process that started this one is gone.
    """
    workers = _Workers(folder, job_id, json.loads(folder.job(job_id).read_text()))
    parent = os.getppid()
    try:
        workers.start_all()
        while workers.running:
            time.sleep(_POLL_S)
            if os.getppid() != parent:
                raise SystemExit("the process that started this job is gone")
            workers.look()
    finally:
        workers.end()
    return workers.outcome()


class _Workers:
    def __init__(self, folder: Folder, job_id: str, plan: dict[str, Any]) -> None:
        executor = plan["executor"]
        self._folder, self._job = folder, job_id
        self._cells: list[str] = [cell["id"] for cell in plan["cells"]]
        self._retries: int = executor["retries"]
        shard = Shard(**plan["shard"])
        self._shards = [shard.part(number, executor["workers"]).name for number in range(executor["workers"])]
        # Set for the whole process: Hugging Face's libraries and OpenMP read theirs when they are imported.
        self._environment = {**os.environ, **plan["cells"][0]["task"]["environment"]}
        if executor["threads"] is not None:
            self._environment["OMP_NUM_THREADS"] = str(executor["threads"])
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self._started: dict[int, str] = {}
        self._futile: Counter[int] = Counter()  # deaths in a row without a new sample, by worker
        self._deaths: Counter[tuple[int, str]] = Counter()  # by worker and cell

    def start_all(self) -> None:
        for needed in (self._folder.log, self._folder.events(self._job, 0).parent):
            needed.mkdir(parents=True, exist_ok=True)
        for number in range(len(self._shards)):
            self._start(number)

    def _start(self, number: int) -> None:
        self._started[number] = now()
        with open(self._log(number), "ab") as log:
            self.running[number] = subprocess.Popen(
                [*COMMAND, str(self._folder.path), self._job, str(number)],
                stdin=subprocess.PIPE,  # never written to: its end tells the worker that this process is gone
                stdout=log,
                stderr=log,
                env=self._environment,
            )

    def _log(self, number: int) -> Path:
        return self._folder.log / f"{self._job}.{number}.out"

    def look(self) -> None:
        """Take note of the workers that have ended."""
        for number, process in list(self.running.items()):
            if (status := process.poll()) is not None:
                del self.running[number]
                if status:
                    self._died(number, process.pid, status)

    def _died(self, number: int, pid: int, status: int) -> None:
        """Start it again; where that has been in vain too often, without the cell that it died over."""
        events = read_lines(self._folder.events(self._job, number))[0]
        self._futile[number] = 0 if self._progressed(number, pid, events) else self._futile[number] + 1
        at = events[-1] if events and events[-1]["event"] == "start" else None
        often = False
        if at is not None:
            self._deaths[number, at["cell"]] += 1
            often = self._deaths[number, at["cell"]] >= DEATHS_FACTOR * self._retries
        if often or self._futile[number] > self._retries:
            shard = self._shards[number]
            known = states(self._folder.read_events())
            cells = [at["cell"]] if at else [c for c in self._cells if not known.get(c, CellState()).covers(shard)]
            self._give_up(number, cells, status)
            self._futile[number] = 0
            if at is None:  # it does not get as far as any cell
                return
        self._start(number)

    def _progressed(self, number: int, pid: int, events: list[dict[str, Any]]) -> bool:
        """Whether the worker that died had finished a cell or a sample since it was started."""
        started = self._started[number]
        if any(event["event"] == "done" and event["time"] >= started for event in events):
            return True
        for lock in self._folder.runs(self._shards[number]).glob("*/lock"):
            if lock.read_text().strip() == str(pid):
                rows = read_lines(lock.with_name("samples.jsonl"))[0]
                if rows and rows[-1]["written"] >= started[: len("2000-01-01T00:00:00")]:
                    return True
        return False

    def _give_up(self, number: int, cells: list[str], status: int) -> None:
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        memory = " (out of memory?)" if status == -signal.SIGKILL else ""
        tail = self._log(number).read_text(errors="replace").splitlines()[-_TAIL:]
        error = f"WorkerDied: its process {how}{memory}, again and again; the end of {self._log(number).name} follows"
        with closing(Journal(self._folder.events(self._job, number))) as journal:
            for cell in cells:
                note(journal, "failed", cell, self._shards[number], error=error, trace="\n".join(tail), given_up=True)

    def end(self) -> None:
        """End all that run: asked first, killed after `KILL_AFTER_S`."""
        for process in self.running.values():
            process.terminate()
        deadline = time.monotonic() + KILL_AFTER_S
        for process in self.running.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def outcome(self) -> Outcome:
        known = states(self._folder.read_events())
        covered = [known.get(cell, CellState()).covers(shard) for cell in self._cells for shard in self._shards]
        return Outcome(sum(covered), len(covered) - sum(covered))


@dataclass(frozen=True)
class Supervised:
    """A job as submitit runs it: pickled at submission, called in the job's own process."""

    folder: Path
    job: str
    devices: str | None = None  # CUDA_VISIBLE_DEVICES of the job; None: as the process has it

    def __call__(self) -> Outcome:
        """Supervise the job. submitit ignores SIGTERM; here it ends the job at once."""
        signal.signal(signal.SIGTERM, _terminate)
        if self.devices is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.devices
        try:
            return supervise(Folder(self.folder), self.job)
        except _Terminated:
            if _slurm_keeps_it_running():
                # Preemption with a grace time: a job that ends within it is over. SIGUSR2 has submitit requeue it.
                os.kill(os.getpid(), signal.SIGUSR2)
            raise

    def checkpoint(self) -> DelayedSubmission:
        """What submitit requeues after a time-out or preemption: the same, as all progress is on disk."""
        return DelayedSubmission(self)


class _Terminated(SystemExit):
    """SIGTERM came."""


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Terminated(128 + number)


def _slurm_keeps_it_running() -> bool:
    """Whether this is a Slurm job that, as far as Slurm is concerned, goes on: it was not cancelled."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job or shutil.which("squeue") is None:
        return False
    answer = subprocess.run(["squeue", "--noheader", "--format=%T", f"--jobs={job}"], capture_output=True, text=True)
    return answer.stdout.strip() == "RUNNING"

"""`python -m sweeps.worker SWEEP_FOLDER JOB_ID WORKER`: one process of a job.

It evaluates the job's cells one after another on its share of the documents, and notes each in its journal. It ends
with its parent: standard input is a pipe from it.
"""

import gc
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import torch
from submitit.helpers import environment_variables

from cacovid.runs.errors import RunLockedError
from cacovid.runs.files import Journal, Lock
from sweeps.cells import Cell
from sweeps.folder import CellState, Folder, states
from sweeps.jobs import Job
from sweeps.journal import note
from sweeps.shards import Shard

if TYPE_CHECKING:
    from sweeps.evaluate import Evaluator

T = TypeVar("T")

HEARTBEAT_S = 5.0
LOCK_WAIT_S = 60.0
"""For how long a lock is waited for: its holder may be a worker of an earlier start on its way out."""
TERMINATED = 143
"""Exit status of a worker that was told to end: 128 + SIGTERM, as a shell counts."""


class WorkerError(RuntimeError):
    """A job that is not what was submitted."""


class Terminated(KeyboardInterrupt):
    """The worker was told to end. No SystemExit: tasks that call sys.exit over a document are caught."""


def work(folder: Folder, job_id: str, worker: int = 0) -> None:
    """Evaluate what is not done of worker `worker`'s share of a job. How the cells went is in its journal.

    Raises WorkerError where the code or the packages are not those of the submission.
    """
    plan = json.loads(folder.job(job_id).read_text())
    job = Job.from_json(plan)
    if job.id != job_id:
        raise WorkerError(
            f"job {job_id} has become {job.id}: the code or the versions of packages are not those that it was "
            f"submitted with; start the sweep again with what is installed now"
        )
    shard = job.shard.part(worker, job.executor.workers)
    with (
        environment_variables(**job.cells[0].task.environment),
        _alive(folder.alive(job_id, worker)),
        closing(Journal(folder.events(job_id, worker))) as journal,
    ):
        _Share(folder, job, shard, worker, journal, plan["submitted"]).work()


@dataclass(frozen=True)
class _Share:
    """A worker's share of a job."""

    folder: Folder
    job: Job
    shard: Shard
    worker: int
    journal: Journal
    submitted: str  # failures before this time do not count

    def work(self) -> None:
        """Every cell that is not done, and those that fail again, as often as the job may try."""
        known = states(self.folder.read_events())
        cells = [cell for cell in self.job.cells if not known.get(cell.id, CellState()).covers(self.shard.name)]
        queue = deque(cell for cell in cells if self._tries_left(cell) > 0)
        if not queue:
            return
        try:
            evaluator = self._prepare()
        except (Exception, SystemExit) as error:  # no cell would fare better
            for cell in queue:
                self._note("failed", cell, **_failure(error), given_up=True)
            return
        gc.freeze()  # lmms-eval collects garbage twice a cell, which takes seconds with all that is loaded
        try:
            while queue:
                cell = queue.popleft()
                if not self._attempt(evaluator, cell) and self._tries_left(cell) > 0:
                    queue.append(cell)
        finally:
            gc.unfreeze()

    def _prepare(self) -> "Evaluator":
        _take_device(self.worker, self.job.executor.workers)
        if self.job.executor.threads is not None:
            torch.set_num_threads(self.job.executor.threads)
        from sweeps.evaluate import Evaluator  # lmms-eval takes seconds to import: not for a job that is done

        return Evaluator(self.folder, self.job, self.shard)

    def _attempt(self, evaluator: "Evaluator", cell: Cell) -> bool:
        self._note("start", cell, host=socket.gethostname(), pid=os.getpid())
        with ExitStack() as until_noted:
            try:
                found = _patiently(lambda: evaluator.evaluate(cell))
                if found["metrics"] is None:
                    lock = _patiently(lambda: Lock(self.folder.ending(cell.id)))
                    until_noted.callback(lock.release)
                    found["metrics"] = self._metrics(evaluator, cell, found)
            except (Exception, SystemExit) as error:
                self._note("failed", cell, **_failure(error), given_up=False)
                if torch.cuda.is_initialized():
                    torch.cuda.synchronize()  # raises where the device is lost: only a new process gets it back
                return False
            self._note("done", cell, **found)
        return True

    def _metrics(self, evaluator: "Evaluator", cell: Cell, found: dict[str, Any]) -> dict[str, float | None] | None:
        """Metrics of the whole cell if only this shard's `done` event is missing; None if others are, too."""
        state = states(self.folder.read_events()).get(cell.id, CellState())
        state.take({**found, "event": "done", "shard": self.shard.name})
        if not state.covers("1-of-1"):
            return None
        return evaluator.metrics(cell, [run for shard in state.disjoint() for run in state.done[shard]["runs"]])

    def _tries_left(self, cell: Cell) -> int:
        failed = [
            row
            for row in self.journal.rows
            if (row["event"], row["cell"], row["shard"]) == ("failed", cell.id, self.shard.name)
            and row["time"] >= self.submitted
        ]
        return 0 if any(row["given_up"] for row in failed) else self.job.executor.retries - len(failed)

    def _note(self, event: str, cell: Cell, **rest: Any) -> None:
        note(self.journal, event, cell.id, self.shard.name, **rest)


def _failure(error: BaseException) -> dict[str, str]:
    """What a `failed` event tells; the log and the terminal hear it, too."""
    trace = "".join(traceback.format_exception(error))
    print(trace, file=sys.stderr, flush=True)
    return {"error": f"{type(error).__name__}: {error}", "trace": trace}


def _take_device(worker: int, workers: int) -> None:
    """Let worker k of several see one GPU: the k-th of those that the job was given."""
    if workers == 1:
        return
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = [str(number) for number in range(torch.cuda.device_count())] if given is None else given.split(",")
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[worker % len(devices)]


def _patiently(do: Callable[[], T]) -> T:
    """What `do` returns; while another process holds the lock that it needs, it is called again."""
    end = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            return do()
        except RunLockedError:
            if time.monotonic() > end:
                raise
            time.sleep(1)


@contextmanager
def _alive(path: Path) -> Iterator[None]:
    """Hold a worker's place, and show that it lives. The lock keeps its journal from two writers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = _patiently(lambda: Lock(path))
    ended = Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_S):
            path.touch()

    thread = Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        os.utime(path, (0, 0))  # it is seen at once that nobody is there any more
        lock.release()


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    for each in _ENDING:
        signal.signal(each, signal.SIG_IGN)  # closing a run is not to be disturbed
    raise Terminated(signal.Signals(number).name)


_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
"""Slurm sends SIGUSR2, by which submitit is told to checkpoint, to all processes of a job."""


def _end_with_parent() -> None:
    """Wait until the other end of standard input is closed, which no death of the parent can prevent."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)  # the main thread may be inside a kernel
    os._exit(TERMINATED)


def main() -> int:
    """Exit status: 0 when every cell was tried, whatever came of it; 143 when told to end."""
    folder, job, worker = sys.argv[1:]
    for each in _ENDING:
        signal.signal(each, _terminate)
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(Folder(Path(folder)), job, int(worker))
    except Terminated as told:
        print(f"ended by {told}; finished samples are kept", file=sys.stderr)
        return TERMINATED
    return 0


if __name__ == "__main__":
    sys.exit(main())

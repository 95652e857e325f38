"""Jobs as processes of this machine, through submitit: as many at a time as told, ended with the call."""

import os
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import submitit
import torch
from submitit.helpers import environment_variables

from sweeps.bar import Bar
from sweeps.folder import Folder
from sweeps.journal import note_submission
from sweeps.settings import Executor
from sweeps.snapshot import environment
from sweeps.supervise import Outcome, Supervised

_ENDLESS_MIN = 60 * 24 * 365
_POLL_S = 0.5


def run(folder: Folder, jobs: list[str], executor: Executor, code: Path) -> None:
    """Run jobs and wait for them. On KeyboardInterrupt they are ended before it goes on."""
    local = submitit.LocalExecutor(folder.log)
    local.update_parameters(timeout_min=_ENDLESS_MIN)
    waiting = deque(jobs)
    running: dict[int, submitit.Job[Outcome]] = {}  # by place
    try:
        with Bar(folder) as bar:
            while waiting or running:
                for place in sorted(set(range(executor.parallel)) - running.keys())[: len(waiting)]:
                    job = waiting.popleft()
                    call = Supervised(folder.path, job, _devices(place, executor))
                    with _undisturbed(), environment_variables(**environment(code)):
                        running[place] = local.submit(call)
                    note_submission(folder, job, "local", pid=int(running[place].job_id), code=code.name)
                time.sleep(_POLL_S)
                running = {place: job for place, job in running.items() if not job.done()}
                bar.refresh()
    finally:
        for process in running.values():
            os.kill(int(process.job_id), signal.SIGTERM)
        while not all(process.done() for process in running.values()):
            time.sleep(_POLL_S)


def _devices(place: int, executor: Executor) -> str | None:
    """CUDA_VISIBLE_DEVICES of the job at one of the `parallel` places: its own GPUs as far as there are enough.

    To be said to each job: submitit lets local jobs see no GPU that they did not ask for.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    every = [str(number) for number in range(torch.cuda.device_count())] if given is None else given.split(",")
    if every in ([], [""]):
        return None
    wanted = range(place * executor.workers, (place + 1) * executor.workers)
    return ",".join(dict.fromkeys(every[number % len(every)] for number in wanted))


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Processes that are started within do not hear Ctrl-C: this one ends them, in good order."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

"""Jobs on Slurm: the options of an sbatch script, submission as one array, and the queue. `sacct` is never needed."""

import shlex
import shutil
import time
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from sweeps.bar import Bar
from sweeps.folder import Folder
from sweeps.journal import note_submission
from sweeps.live import QueueError, queue
from sweeps.settings import Executor
from sweeps.snapshot import environment
from sweeps.submissions import job_name, submitting
from sweeps.supervise import Supervised

POLL_S = 10.0
"""Between two looks at the queue: squeue is a load on the controller."""


class LaunchError(RuntimeError):
    """Jobs that could not be handed over."""


def parameters(executor: Executor, name: str, code: Path) -> dict[str, Any]:
    """Options of `submitit.SlurmExecutor.update_parameters`.

    Args:
        name: of the jobs, as the queue shows it.
        code: folder that the jobs' code is imported from.
    """
    exports = [f"export {variable}={shlex.quote(value)}" for variable, value in environment(code).items()]
    options = {
        "job_name": name,
        "time": executor.timeout_min,
        "array_parallelism": executor.parallel,
        "partition": executor.partition,
        "account": executor.account,
        "qos": executor.qos,
        "gres": executor.gres,
        "gpus_per_node": executor.gpus_per_node,
        "cpus_per_task": executor.cpus_per_task,
        "mem": None if executor.mem_gb is None else f"{round(executor.mem_gb * 1024)}MB",
        "constraint": executor.constraint,
        "signal_delay_s": executor.signal_delay_s,
        "setup": [*executor.setup, *exports],  # after the user's lines: `module load` may set PYTHONPATH
        "additional_parameters": executor.extra or None,
    }
    return {key: value for key, value in options.items() if value is not None}


def submit(folder: Folder, jobs: list[str], executor: Executor, code: Path) -> list[str]:
    """Submit jobs as one array; returns their Slurm ids, e.g. 123_0. The script stays in the log folder.

    Raises LaunchError with sbatch's own words.
    """
    if absent := [program for program in ("sbatch", "srun", "squeue") if shutil.which(program) is None]:
        raise LaunchError(
            f"executor slurm: no {', '.join(absent)} on PATH; run this on a login node of a cluster, or with "
            f"executor=local"
        )
    try:
        slurm = submitit.SlurmExecutor(folder.log, max_num_timeout=executor.max_timeouts)
        name = job_name(folder)
        slurm.update_parameters(**parameters(executor, name, code))
        with submitting(folder, name, jobs, code):
            with slurm.batch():
                submitted = [slurm.submit(Supervised(folder.path, job)) for job in jobs]
            ids = [job.job_id for job in submitted]
            for job, number in zip(jobs, ids, strict=True):
                note_submission(folder, job, "slurm", slurm=number, code=code.name)
    except (FailedJobError, FailedSubmissionError, ValueError) as error:
        raise LaunchError(
            f"sbatch refused the jobs: {str(error).strip()}; correct the options of the executor (executor.partition=, "
            f"executor.account=, executor.extra={{...}}) and run the same command again"
        ) from error
    return ids


def wait(folder: Folder, ids: list[str]) -> None:
    """Show how far the sweep is until none of these jobs is queued or running. A time without squeue is sat out."""
    with Bar(folder) as bar:
        while True:
            try:
                if queue().keys().isdisjoint(ids):
                    return
            except QueueError as error:
                bar.say(str(error))
            bar.refresh()
            time.sleep(POLL_S)

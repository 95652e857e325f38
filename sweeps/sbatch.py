"""The sbatch script of a sweep, as submitit writes it, where there need not be a Slurm."""

from submitit import SlurmExecutor

from sweeps.folder import Folder
from sweeps.settings import Executor
from sweeps.slurm import parameters
from sweeps.submissions import job_name


class _Anywhere(SlurmExecutor):
    """The class itself asks for srun on PATH."""

    @classmethod
    def affinity(cls) -> int:
        return 1


def script(executor: Executor, folder: Folder, jobs: int) -> str:
    """Of an array of `jobs` jobs. In capitals stands what a submission alone knows: its name's end, the code's hash."""
    writer = _Anywhere(folder=folder.log.resolve(), max_num_timeout=executor.max_timeouts)
    options = parameters(executor, job_name(folder, "SUBMISSION"), folder.code.resolve() / "CODE")
    writer.update_parameters(**options)
    writer.parameters["map_count"] = jobs  # as submitit does for an array
    return writer._make_submission_file_text(writer._submitit_command_str, "")

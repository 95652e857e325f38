"""A submitit job that writes down what happens to it. Imported by the job, too: no pytest here."""

import os
import signal
import time
from pathlib import Path
from types import FrameType

from submitit.helpers import DelayedSubmission


class Probe:
    """Notes its starts (with Slurm's count of restarts), signals and end; runs until the file `go` is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> str:
        for number in (signal.SIGTERM, signal.SIGCONT):  # submitit's own handlers for these do nothing
            signal.signal(number, self._signalled)
        self._note(f"start {os.environ.get('SLURM_RESTART_COUNT', 0)}")
        try:
            while not (self.folder / "go").exists():
                time.sleep(0.05)
        finally:
            self._note("end")
        return os.environ.get("SLURM_ARRAY_TASK_ID", "")

    def checkpoint(self) -> DelayedSubmission:
        """Called by submitit on SIGUSR2, before it requeues the job."""
        self._note("checkpoint")
        return DelayedSubmission(self)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self._note(signal.Signals(number).name)

    def _note(self, word: str) -> None:
        with open(self.folder / "notes", "a") as file:
            file.write(word + "\n")

    @property
    def notes(self) -> list[str]:
        """What was noted so far."""
        path = self.folder / "notes"
        return path.read_text().splitlines() if path.exists() else []

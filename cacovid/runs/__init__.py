"""Run records: one directory a run, named by the hash of every setting that can change a number."""

from cacovid.runs.errors import RunError, RunLockedError, RunWriteError
from cacovid.runs.run import Run
from cacovid.runs.sample import Failure, Sample
from cacovid.runs.settings import RunSettings

__all__ = ["Failure", "Run", "RunError", "RunLockedError", "RunSettings", "RunWriteError", "Sample"]

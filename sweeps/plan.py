"""What a call of `python -m sweeps run` has to do: its cells, what is done of them, and jobs for the rest."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cacovid.registry import method_class
from cacovid.runs.errors import RunLockedError
from cacovid.runs.files import Lock, write_errors, write_json
from cacovid.runs.source import source_sha256
from sweeps.cells import Cell, cells_of
from sweeps.folder import SCHEMA, CellState, Folder, FolderError, states
from sweeps.jobs import Job, jobs_of
from sweeps.journal import now
from sweeps.settings import Sweep


@dataclass(frozen=True)
class Plan:
    """A sweep, and how far it is."""

    sweep: Sweep
    folder: Folder
    cells: list[Cell]
    known: dict[str, CellState]  # by cell id
    jobs: list[Job]  # of what is not done: cells that failed are taken up again

    @classmethod
    def of(cls, sweep: Sweep) -> "Plan":
        """Raises ConfigError for a grid that cannot be, FolderError for a folder that another version wrote."""
        cells, folder = cells_of(sweep), Folder(Path(sweep.results))
        if folder.sweep.exists():
            folder.read()
        known = states(folder.read_events())
        return cls(sweep, folder, cells, known, list(_open_jobs(jobs_of(sweep, cells), known)))

    @property
    def done(self) -> list[Cell]:
        """Cells that hold all of their documents."""
        return [cell for cell in self.cells if self.state(cell).covers("1-of-1")]

    @property
    def failed(self) -> list[Cell]:
        """Cells whose last start ended in an error on some stretch of the documents."""
        return [c for c in self.cells if self.state(c).failed and not self.state(c).covers("1-of-1")]

    def state(self, cell: Cell) -> CellState:
        """What is known of a cell."""
        return self.known.get(cell.id, CellState())

    def record(self) -> None:
        """Write sweep.json. Cells of earlier calls stay in it, since their runs do. Raises RunWriteError."""
        earlier = self.folder.read()["cells"] if self.folder.sweep.exists() else []
        cells = {row["id"]: row for row in [*earlier, *(cell.to_json() for cell in self.cells)]}
        modules = {"sweeps.jobs", *(method_class(cell.method).__module__ for cell in self.cells)}
        sweep = {
            "schema": SCHEMA,
            "time": now(),
            "code": source_sha256(sorted(modules)),
            "config": asdict(self.sweep),
            "cells": list(cells.values()),
            "grid": [cell.id for cell in self.cells],
        }
        with write_errors(self.folder.sweep, "nothing was started"):
            write_json(self.folder.sweep, sweep)


def _open_jobs(jobs: list[Job], known: dict[str, CellState]) -> Iterator[Job]:
    for job in jobs:
        left = [cell for cell in job.cells if not known.get(cell.id, CellState()).covers(job.shard.name)]
        if left:
            yield replace(job, cells=left)


@contextmanager
def alone(folder: Folder) -> Iterator[None]:
    """Hold the folder against a second `sweeps run`. Raises FolderError while there is one, RunWriteError."""
    with write_errors(folder.path, "nothing was started"):
        folder.path.mkdir(parents=True, exist_ok=True)
        try:
            lock = Lock(folder.path / "lock")
        except RunLockedError as error:
            raise FolderError(
                f"another `python -m sweeps run` is at work in {folder.path}; wait for it, or give this one another "
                f"folder: --results DIR"
            ) from error
    try:
        yield
    finally:
        lock.release()

"""Jobs: cells that share a backbone and a task, on one stretch of its documents."""

from dataclasses import asdict, dataclass
from typing import Any

from cacovid.runs.digest import digest
from sweeps.cells import Cell
from sweeps.settings import Executor, Store, Sweep
from sweeps.shards import Shard as Shard


@dataclass(frozen=True)
class Job:
    """What one process, or one array task, has to do. Written as JSON, read by the worker."""

    cells: list[Cell]
    shard: Shard
    store: Store
    executor: Executor

    @property
    def id(self) -> str:
        """Twelve hex digits."""
        return digest([[cell.id for cell in self.cells], asdict(self.shard)])[:12]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        rest = {name: asdict(getattr(self, name)) for name in ("shard", "store", "executor")}
        return {"id": self.id, "cells": [cell.to_json() for cell in self.cells], **rest}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Job":
        """Inverse of `to_json`."""
        cells = [Cell.from_json(cell) for cell in row["cells"]]
        return cls(cells, Shard(**row["shard"]), Store(**row["store"]), Executor(**row["executor"]))


def jobs_of(sweep: Sweep, cells: list[Cell]) -> list[Job]:
    """`cells` in jobs: one for each backbone, task, shard and stretch of `cells_per_job` cells."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(digest([asdict(cell.backbone), asdict(cell.task)]), []).append(cell)
    return [
        Job(some, Shard(number, sweep.shards), sweep.store, sweep.executor)
        for group in groups.values()
        for some in _stretches(group, sweep.cells_per_job or len(group))
        for number in range(sweep.shards)
    ]


def _stretches(cells: list[Cell], length: int) -> list[list[Cell]]:
    return [cells[start : start + length] for start in range(0, len(cells), length)]

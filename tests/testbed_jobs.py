"""Jobs on the test bed, and what their journals hold afterwards."""

from pathlib import Path
from typing import Any

from cacovid.runs.files import read_lines, write_json
from sweeps.cells import Cell
from sweeps.folder import SCHEMA, Folder
from sweeps.jobs import Job
from sweeps.journal import now
from sweeps.settings import Backbone, Executor, Store, Task
from sweeps.shards import Shard

BACKBONE = Backbone("llava_ov", "testbed", device="cpu")
HERE = Executor("debug", threads=1)


def made_cells(*methods: str, videos: int = 1, limit: int | None = None, **task: Any) -> list[Cell]:
    """A cell for each method (or method at retention: "random@0.1")."""
    environment = {"CACOVID_TESTBED_VIDEOS": str(videos)}
    asked = Task(**{"name": "evidence_vqa", "include_path": "cacovid", **task}, limit=limit, environment=environment)
    cells = []
    for word in methods:
        method, _, retention = word.partition("@")
        cells.append(Cell(word, BACKBONE, asked, method, {"retention": float(retention or 0.25), "batch_size": 1}))
    return cells


def made_job(folder: Path, cells: list[Cell], executor: Executor = HERE, shard: Shard | None = None) -> Job:
    """A job of a sweep in `folder`, as `sweeps run` and `launch` write them down."""
    job = Job(cells, shard or Shard(), Store(), executor)
    write_sweep(folder, cells)
    write_plan(folder, job.to_json())
    return job


def write_sweep(folder: Path, cells: list[Cell]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [cell.to_json() for cell in cells]
    write_json(Folder(folder).sweep, {"schema": SCHEMA, "grid": [row["id"] for row in rows], "cells": rows})


def write_plan(folder: Path, plan: dict[str, Any]) -> None:
    path = Folder(folder).job(plan["id"])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**plan, "submitted": now()})


def events(folder: Path, job: str, worker: int = 0) -> list[dict[str, Any]]:
    return read_lines(Folder(folder).events(job, worker))[0]


def course(folder: Path, job: str, worker: int = 0) -> list[tuple[str, str]]:
    """(event, cell id), in order."""
    return [(event["event"], event["cell"]) for event in events(folder, job, worker)]

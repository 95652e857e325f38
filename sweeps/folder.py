"""A sweep's folder: what is planned, what has been done, and by whom. Read without torch.

sweep.json          the composed configuration and every cell (of earlier calls, too)
jobs/<id>.json      what a job has to do
events/<id>.<k>.jsonl   what worker k of the job did: one line for each cell started, done or failed
events/<id>.<k>.alive   touched every few seconds while that worker lives
runs/<run>/, runs/<shard>/<run>/   run.json and samples.jsonl, as `cacovid.runs` writes them
submitting/         submissions to Slurm that are under way, or were cut off
log/                submitit's files: sbatch scripts, pickles, standard output
code/<hash>/        the code that the jobs run
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from cacovid.runs.files import read_lines

# sweep.json: {"schema": SCHEMA, "config": ..., "cells": [Cell.to_json(), ...], "grid": [ids of the last call's cells]}.
# submitted.jsonl, a line for each submission: job, executor, slurm ("123_4" or null), pid, host, time, code (name of
# its folder in `code/`; older versions did not tell it).
# submitting/<name>.json, while a submission is under way, or after it was cut off: jobs (ids, in the array's order),
# code, time, over (whether sbatch has ended).
#
# An event: {"event": ..., "cell": id, "shard": "1-of-1", "time": UTC with microseconds, ...}. The kinds:
#   start    host, pid
#   done     runs (folders, relative to the sweep's, one a task; none for a shard without documents), counts (as in
#            run.json), reasons {failure reason: samples}, seconds,
#            videos {decoded, encoded, hits, ...} (`cacovid.store.Counters`, of this cell),
#            metrics {name: value}, of the whole cell, where this shard was the last of it; else null
#   failed   error ("Type: message"), trace
#   retry    by `python -m sweeps retry`: the cell's state in that shard is set aside

SCHEMA = 1
"""Version of a sweep folder's files."""


class FolderError(ValueError):
    """A folder that holds no sweep, or one of another schema."""


@dataclass(frozen=True)
class Folder:
    """Paths in a sweep's folder."""

    path: Path

    @property
    def sweep(self) -> Path:
        return self.path / "sweep.json"

    def job(self, job: str) -> Path:
        return self.path / "jobs" / f"{job}.json"

    def events(self, job: str, worker: int) -> Path:
        return self.path / "events" / f"{job}.{worker}.jsonl"

    def alive(self, job: str, worker: int) -> Path:
        return self.path / "events" / f"{job}.{worker}.alive"

    def ending(self, cell: str) -> Path:
        """Lock under which a worker notes that a shard of the cell is done: one of them sees that it was the last."""
        return self.path / "events" / f"{cell}.lock"

    def runs(self, shard: str) -> Path:
        """Where a worker's runs go: shards of one run have one id, so each shard has a folder."""
        return self.path / "runs" if shard == "1-of-1" else self.path / "runs" / shard

    def submitting(self, name: str) -> Path:
        """What a submission to Slurm is about; see `sweeps.submissions`."""
        return self.path / "submitting" / f"{name}.json"

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def code(self) -> Path:
        return self.path / "code"

    def read(self) -> dict[str, Any]:
        """sweep.json. Raises FolderError where there is none, or one of another schema."""
        try:
            sweep = json.loads(self.sweep.read_text())
        except FileNotFoundError:
            raise FolderError(
                f"{self.path} holds no sweep (no sweep.json); start one with `python -m sweeps run`"
            ) from None
        except ValueError as error:
            raise FolderError(
                f"{self.sweep} is damaged ({error}); run the sweep again to have it written anew"
            ) from error
        if sweep.get("schema") != SCHEMA:
            raise FolderError(
                f"{self.sweep} has schema {sweep.get('schema')}, expected {SCHEMA}: it was written by another version; "
                f"use another results folder"
            )
        return sweep

    def read_events(self) -> Iterator[dict[str, Any]]:
        """The events of all workers, each with `job` and `worker`; in order within a worker."""
        for path in sorted((self.path / "events").glob("*.jsonl")):
            job, worker = path.stem.split(".")
            for row in read_lines(path)[0]:
                yield {**row, "job": job, "worker": int(worker)}


@dataclass
class CellState:
    """What is known of one cell, from its events."""

    done: dict[str, dict[str, Any]] = field(default_factory=dict)  # shard name -> last `done` event
    failed: dict[str, dict[str, Any]] = field(default_factory=dict)  # shard name -> last `failed` event, not done since
    started: dict[str, dict[str, Any]] = field(default_factory=dict)  # shard name -> last `start` event, not ended

    def take(self, event: dict[str, Any]) -> None:
        """Fold one event in."""
        shard = event["shard"]
        if event["event"] == "start":
            self.started[shard] = event
            return
        self.started.pop(shard, None)
        self.failed.pop(shard, None)
        if event["event"] == "done":
            self.done[shard] = event
        elif event["event"] == "failed":
            self.failed[shard] = event
        else:  # "retry": whatever was known of this shard is set aside
            self.done.pop(shard, None)

    def covers(self, shard: str) -> bool:
        """Whether shards that are done hold all documents of `shard`."""
        start, end = stretch(shard)
        for low, high in sorted(map(stretch, self.done)):
            if low <= start < high:
                start = high
        return start >= end

    def disjoint(self) -> Iterator[str]:
        """Finished shards that hold each document once: cutting may have changed between calls."""
        reached = stretch("1-of-1")[0]
        for shard in sorted(self.done, key=lambda shard: (stretch(shard)[0], -stretch(shard)[1])):
            if stretch(shard)[1] > reached:
                yield shard
                reached = stretch(shard)[1]

    @property
    def metrics(self) -> dict[str, float | None] | None:
        """lmms-eval's, of all documents; None until these are done."""
        told = [event for event in self.done.values() if event.get("metrics")]
        return max(told, key=lambda event: event["time"])["metrics"] if told and self.covers("1-of-1") else None


@cache
def stretch(shard: str) -> tuple[float, float]:
    """The part of a task's documents that a shard holds, as a stretch of [0, 1].

    >>> stretch("2-of-4")
    (0.25, 0.5)
    """
    number, of = (int(word) for word in shard.split("-of-"))
    return (number - 1) / of, number / of  # comparable: 1/3 and 2/6 are rounded to the same number


def states(events: Iterable[dict[str, Any]]) -> dict[str, CellState]:
    """Cell id -> state, from events of any number of workers; their times (UTC, microseconds) put them in order."""
    out: dict[str, CellState] = {}
    for event in sorted(events, key=lambda event: event["time"]):
        out.setdefault(event["cell"], CellState()).take(event)
    return out

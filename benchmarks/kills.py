"""`python benchmarks/kills.py`: sweeps whose processes are killed at random moments, again and again, until they end.

Four workers (two jobs of two) share a results folder and a store. In each run workers, supervisors and submitit's own
processes get SIGKILL; the sweep is started again whenever it ends unfinished. At the end its samples must be those of
one undisturbed run in a single process, row by row but for times: none twice, none missing; its cells' metrics, too.
Exit status 1 otherwise.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil

from cacovid.runs.files import read_lines, write_json
from sweeps.cells import Cell
from sweeps.folder import SCHEMA, Folder, states
from sweeps.jobs import Job
from sweeps.launch import launch
from sweeps.settings import Backbone, Executor, Store, Task
from sweeps.shards import Shard

ROLES = {
    "worker": "-m sweeps.worker {folder} ",
    "supervisor": "-m submitit.core._submit {folder}/log",
    "job": "-m submitit.local._local {folder}/log",
}
"""Processes of a local job, by what stands in their command line."""
LAUNCHES = 40
ROWS_S = 300.0


def cells_on(videos: int, methods: list[str]) -> list[Cell]:
    """A cell of the test bed for each method."""
    task = Task("evidence_vqa", "cacovid", environment={"CACOVID_TESTBED_VIDEOS": str(videos)})
    backbone = Backbone("llava_ov", "testbed", device="cpu")
    return [Cell(name, backbone, task, name, {"retention": 0.25, "batch_size": 1}) for name in methods]


def run(folder: Path, cells: list[Cell], executor: Executor, shards: int = 1) -> int:
    """Launch a sweep of these cells, or go on with it; the exit status."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [cell.to_json() for cell in cells]
    write_json(Folder(folder).sweep, {"schema": SCHEMA, "grid": [row["id"] for row in rows], "cells": rows})
    jobs = [Job(cells, Shard(number, shards), Store(), executor) for number in range(shards)]
    return launch(Folder(folder), jobs, executor, wait=True)


def answers(folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """(run id, document) -> row but for its times, of all runs and their shards, which must be finished.

    Raises ValueError for a run that is not, and for a row that is there twice.
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for path in sorted(folder.glob("runs/**/run.json")):
        record = json.loads(path.read_text())
        if (record["state"], record["counts"]["missing"]) != ("done", 0):
            raise ValueError(f"{path.parent} is {record['state']}, {record['counts']['missing']} samples missing")
        for row in read_lines(path.with_name("samples.jsonl"))[0]:
            key = record["id"], row["doc_id"]
            if key in found:
                raise ValueError(f"document {row['doc_id']} is there twice, the second time in {path.parent}")
            found[key] = {name: value for name, value in row.items() if name not in ("seconds", "written")}
    return found


def metrics(folder: Path) -> dict[str, dict[str, float | None] | None]:
    """lmms-eval's numbers of every cell, by id; None for one that is not done."""
    return {cell: state.metrics for cell, state in states(Folder(folder).read_events()).items()}


def kill_one(folder: Path, role: str, choose: Callable[[list[psutil.Process]], psutil.Process]) -> bool:
    """SIGKILL to one of this sweep's processes; False where none has that role at the moment."""
    words = ROLES[role].format(folder=folder.resolve())
    found = [p for p in psutil.process_iter(["cmdline"]) if words in " ".join(p.info["cmdline"] or [])]
    if found:
        choose(found).kill()
    return bool(found)


class Killer(Thread):
    """Kills in the order of `roles`: most of them a moment after a new sample was written, some while models load."""

    def __init__(self, folder: Path, roles: list[str], *, seed: int = 0, in_loading: float = 0.3) -> None:
        super().__init__(daemon=True)
        self._folder, self._roles, self._in_loading = folder, roles, in_loading
        self._random = random.Random(seed)
        self.ended = Event()
        self.killed: Counter[str] = Counter()

    def run(self) -> None:
        for role in self._roles:
            if self._random.random() < self._in_loading:
                self.ended.wait(self._random.uniform(1, 8))
            else:
                self._wait_for_rows()
                self.ended.wait(self._random.uniform(0, 1))
            while not self.ended.is_set() and not kill_one(self._folder, role, self._random.choice):
                time.sleep(0.05)
            if self.ended.is_set():
                return
            self.killed[role] += 1

    def _wait_for_rows(self) -> None:
        def written() -> int:
            return sum(path.stat().st_size for path in self._folder.glob("runs/**/samples.jsonl"))

        before, end = written(), time.monotonic() + ROWS_S
        while not self.ended.is_set() and written() <= before and time.monotonic() < end:
            time.sleep(0.05)


def disturbed(folder: Path, cells: list[Cell], executor: Executor, shards: int, killer: Killer) -> int:
    """Run a sweep to its end while `killer` is at work; how often it had to be started."""
    killer.start()
    try:
        for number in range(1, LAUNCHES + 1):
            if run(folder, cells, executor, shards) == 0:
                return number
    finally:
        killer.ended.set()
        killer.join()
    raise RuntimeError(f"{folder} is not done after {LAUNCHES} launches")


def main() -> int:
    """Print a line for each run; exit status 1 if one of them lost, doubled or changed a sample."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--kills", type=int, default=8, help="in each run (default: %(default)s)")
    parser.add_argument("--videos", type=int, default=8, help="seven questions each (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    cells = cells_on(args.videos, ["random", "attention_topk", "fastv"])
    bad = 0
    with tempfile.TemporaryDirectory() as root:
        run(Path(root) / "whole", cells, Executor("debug", threads=1))
        expected, numbers = answers(Path(root) / "whole"), metrics(Path(root) / "whole")
        for number in range(args.runs):
            folder, seed = Path(root) / str(number), args.seed + number
            roles = random.Random(seed).choices(list(ROLES), weights=(3, 1, 1), k=args.kills)
            killer, start = Killer(folder, roles, seed=seed), time.perf_counter()
            launches = disturbed(folder, cells, Executor("local", parallel=2, workers=2, threads=1), 2, killer)
            found = answers(folder)
            wrong = sum(found.get(key) != row for key, row in expected.items()) + len(found.keys() - expected.keys())
            equal = metrics(folder) == numbers
            bad += bool(wrong) or not equal
            print(
                f"run {number}: {len(found)} of {len(expected)} samples, {wrong} wrong, "
                f"metrics {'equal' if equal else 'DIFFER'}; killed {dict(killer.killed)}, {launches} launches, "
                f"{time.perf_counter() - start:.0f} s",
                flush=True,
            )
    print(f"{args.runs - bad} of {args.runs} runs have exactly the samples and metrics of the undisturbed one")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

"""Samples that a sweep's jobs have written, and how fast: read from the runs that are or were at work."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cacovid.runs.errors import RunError
from sweeps.folder import Folder
from sweeps.parts import SHARD, read_run

WINDOW = timedelta(minutes=10)
"""The rate is that of the samples written since."""

_WRITTEN = re.compile(rb'"written": "([^"]+)"\}\n')
_STEP = 2**20


@dataclass(frozen=True)
class Progress:
    """What lies in runs that are not done, and what was written of late in all of them."""

    samples: int  # of runs at work, or cut off in it
    rate: float | None  # samples a second; None: nothing was written within WINDOW


def progress(folder: Folder, done: Iterable[dict[str, Any]], opened: datetime | None, now: datetime) -> Progress:
    """Progress at `now`.

    Args:
        done: the `done` events of all cells.
        opened: time of the earliest start that has not ended; runs at work that began before it are another call's.
    """
    since = now - WINDOW
    ended = list(done)
    begun, recent, samples = now, 0, 0
    late_runs = (run for event in ended if event["time"] >= since.isoformat() for run in event["runs"])
    for _, run in readable(folder.path / run for run in late_runs):
        if run["state"] != "done":  # opened again by another command
            continue
        attempt = run["attempts"][-1]
        start, end = (datetime.fromisoformat(attempt[key]) for key in ("started", "ended"))
        recent += round(attempt["computed"] * min(1.0, (end - since) / max(end - start, timedelta(seconds=1))))
        begun = min(begun, start)
    for path, run in readable(
        unfinished_runs(folder, {run for event in ended for run in event["runs"]}) if opened else ()
    ):
        start = datetime.fromisoformat(run["attempts"][-1]["started"])
        if run["state"] == "running" and opened is not None and start >= opened.replace(microsecond=0):
            rows, late = _rows(path / "samples.jsonl", max(since, start))
            samples += min(rows, run["counts"]["asked"])
            recent += late
            begun = min(begun, start)
    seconds = (now - max(begun, since)).total_seconds()
    return Progress(samples, recent / seconds if recent and seconds > 0 else None)


def readable(paths: Iterable[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Runs with their run.json; one that is damaged or just being made has no progress to tell."""
    for path in paths:
        try:
            yield path, read_run(path)
        except (FileNotFoundError, RunError):
            continue


def unfinished_runs(folder: Folder, known: set[str]) -> Iterator[Path]:
    """Run directories that are not among the `known` ones, such as `done` events name: runs/2-of-4/<id>."""
    for name in _folders(folder.path / "runs"):
        if SHARD.fullmatch(name):
            below = _folders(folder.path / "runs" / name)
            yield from (folder.path / path for run in below if (path := f"runs/{name}/{run}") not in known)
        elif (path := f"runs/{name}") not in known:
            yield folder.path / path


def _folders(path: Path) -> list[str]:
    if not path.exists():
        return []
    with os.scandir(path) as entries:
        return [entry.name for entry in entries if entry.is_dir()]


def _rows(path: Path, since: datetime) -> tuple[int, int]:
    """Complete rows of samples.jsonl, and those written at or after `since`, which are its last ones."""
    if not path.exists():
        return 0, 0
    with open(path, "rb") as file:
        rows = sum(block.count(b"\n") for block in iter(lambda: file.read(_STEP), b""))
        size, late, reach = file.tell(), 0, 0
        while reach < size:
            reach = min(size, max(_STEP, 2 * reach))
            file.seek(size - reach)
            times = [datetime.fromisoformat(text.decode()) for text in _WRITTEN.findall(file.read(reach))]
            late = sum(time >= since for time in times)
            if late < len(times):
                break
    return rows, late

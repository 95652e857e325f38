"""Run directories found again: the parts of each run, whether they make it whole, and their samples."""

import os
import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from cacovid.runs.errors import RunError
from cacovid.runs.sample import Sample
from cacovid.runs.settings import SCHEMA
from sweeps.folder import CellState

_KEYS = frozenset(field.name for field in fields(Sample))
_NEEDED = frozenset(f.name for f in fields(Sample) if f.default is MISSING and f.default_factory is MISSING)
_KEPT = re.compile(rb'"kept": \[[^\]]*\]')  # never part of a text: there its quotes would be escaped
SHARD = re.compile(r"\d+-of-\d+")


@dataclass(frozen=True)
class Part:
    """One folder of a run: all of it, or one shard."""

    folder: Path
    run: dict[str, Any]  # run.json

    @property
    def shard(self) -> str:
        """As in folders: `2-of-8`; `1-of-1` for a run that lies in no shard's folder."""
        name = self.folder.parent.name
        return name if SHARD.fullmatch(name) else "1-of-1"

    @property
    def samples(self) -> Path:
        return self.folder / "samples.jsonl"

    @property
    def asked(self) -> Iterator[int]:
        """Ids of the documents that it was to answer."""
        for first, last in self.run["asked"]:
            yield from range(first, last + 1)


@dataclass(frozen=True)
class WholeRun:
    """All parts of one run, in the order in which they were started."""

    id: str
    parts: list[Part]
    told: bool = False  # a sweep's events tell that it is whole; a shard without documents has no folder

    @cached_property
    def unfinished(self) -> str | None:
        """Why the finished parts do not make it whole; None if they do."""
        if self.told or CellState(done={part.shard: part.run for part in self._done}).covers("1-of-1"):
            return None
        return ", ".join(sorted({f"{part.shard} is {part.run['state']}" for part in self.parts}))

    @property
    def _done(self) -> list[Part]:
        return [part for part in self.parts if part.run["state"] == "done"]

    @cached_property
    def asked(self) -> frozenset[int]:
        """Documents of the run: those of its finished parts, or of all parts where it is not whole."""
        return frozenset(number for part in (self.parts if self.unfinished else self._done) for number in part.asked)


def run_folders(folder: Path) -> Iterator[Path]:
    """Folders at or below `folder` that hold a run.json, in order of their names. A run holds no run."""
    for path, below, files in os.walk(folder):
        below.sort()
        if "run.json" in files:
            below.clear()
            yield Path(path)


def whole_runs(folders: Iterable[Path], told: Container[str]) -> tuple[list[WholeRun], list[RunError]]:
    """Runs in order of their ids, from run directories, and what was wrong with those that could not be read.

    `told`: ids of runs that are whole by a sweep's events.
    """
    found: dict[str, list[Part]] = {}
    wrong = []
    for folder in folders:
        try:
            part = Part(folder, read_run(folder))
        except RunError as error:
            wrong.append(error)
        else:
            found.setdefault(part.run["id"], []).append(part)
    runs = [WholeRun(id, sorted(found[id], key=lambda part: part.run["started"]), id in told) for id in sorted(found)]
    return runs, wrong


def read_run(folder: Path) -> dict[str, Any]:
    """A run directory's run.json. Raises RunError for a damaged one, and for one of another schema."""
    path = folder / "run.json"
    try:
        run: dict[str, Any] = orjson.loads(path.read_bytes())
        schema = run.get("schema")
    except (ValueError, AttributeError) as error:
        raise RunError(f"{path} is damaged ({error}); run that cell again to have it written anew") from error
    if schema != SCHEMA:
        raise RunError(f"{path} has schema {schema}, expected {SCHEMA}: another version wrote it; use that to read it")
    return run


def read_samples(path: Path, many: int) -> Iterator[list[dict[str, Any]]]:
    """The rows of a samples.jsonl without their `kept` lists, `many` at a time; a missing file has none.

    A torn last line is no row: it was being written. Raises RunError for any other line that is no sample.
    """
    if not path.exists():
        return
    number = 0
    with open(path, "rb") as file:
        while lines := list(islice(file, many)):
            rows = []
            for line in lines:
                number += 1
                if not line.endswith(b"\n"):
                    break
                try:
                    row = orjson.loads(_KEPT.sub(b'"kept": null', line, count=1))
                    wrong = None if _NEEDED <= row.keys() <= _KEYS else f"no sample of schema {SCHEMA}"
                except (ValueError, AttributeError) as error:
                    wrong = f"damaged ({error})"
                if wrong:
                    raise RunError(f"{path}, line {number} is {wrong}; delete that line and run that cell again")
                rows.append(row)
            yield rows

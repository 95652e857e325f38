"""Runs and their samples as two Parquet files: a row a run, a row a sample, whatever folders they lie in."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cacovid.runs.errors import RunError
from cacovid.runs.files import sync_folder
from sweeps.columns import run_row, run_table, sample_table
from sweeps.folder import Folder, states
from sweeps.parts import WholeRun, read_samples, run_folders, whole_runs

BATCH = 128 * 2**20
"""Bytes of samples.jsonl that one row group is made of; the run that passes it is the last in it."""

CHUNK = 2000
"""Samples that are parsed at a time."""


@dataclass
class Collected:
    """What `collect` did."""

    runs: int = 0
    samples: int = 0
    unfinished: dict[str, str] = field(default_factory=dict)  # run id -> why; left out, or marked `partial`
    damaged: list[str] = field(default_factory=list)  # what was wrong with runs that were left out


@dataclass(frozen=True)
class _Batch:
    """Some runs' samples: one row group."""

    runs: list[WholeRun]
    path: Path  # of the Arrow file in between: a group's columns are known once all groups have been read


@dataclass(frozen=True)
class _Read:
    """What became of a batch."""

    counts: dict[str, dict[str, int]]  # run id -> answered, failed, missing; of the runs in the Arrow file
    damaged: list[str]


def collect(
    folders: list[Path], out: Path, *, partial: bool = False, skip_damaged: bool = False, processes: int = 1
) -> Collected:
    """Write out/runs.parquet and out/samples.parquet from sweeps' folders or folders with runs at any depth.

    The same runs give the same bytes. Raises RunError where nothing is finished, and, before anything is replaced,
    for damaged runs and those of another schema, naming all of them; `skip_damaged` leaves these out.
    """
    found: list[Path] = []
    for folder in folders:
        found += run_folders(folder / "runs" if (folder / "sweep.json").exists() else folder)
    labels, told_whole = told_by_sweeps(folders)
    runs, errors = whole_runs(dict.fromkeys(found), told_whole)
    told = Collected(damaged=[str(error) for error in errors])
    told.unfinished = {run.id: run.unfinished for run in runs if run.unfinished}
    taken = [run for run in runs if partial or not run.unfinished]
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".collect-", dir=out) as scratch:
        batches = list(_batches(taken, Path(scratch)))
        counts: dict[str, dict[str, int]] = {}
        for read in _read_all(batches, processes):
            counts |= read.counts
            told.damaged += read.damaged
        if told.damaged and not skip_damaged:
            raise RunError(
                f"{'; '.join(told.damaged)}. Nothing was written; mend what is named, or leave those runs out with "
                f"--skip-damaged"
            )
        if not counts:
            raise RunError(
                f"no finished run in {', '.join(map(str, folders))}, {len(told.unfinished)} unfinished; wait for one, "
                f"or take these with --partial"
            )
        told.samples = _write(out / "samples.parquet", _tables([batch.path for batch in batches]))
    rows = [run_row(run, counts[run.id], sorted(labels.get(run.id, ()))) for run in taken if run.id in counts]
    told.runs = _write(out / "runs.parquet", iter([run_table(rows)]))
    sync_folder(out)
    return told


def told_by_sweeps(folders: list[Path]) -> tuple[dict[str, set[str]], set[str]]:
    """Labels of runs by id, and the ids of whole runs, as the events of sweeps tell.

    The sweeps are those that `folders` are, or whose `runs` they are.
    """
    labels: dict[str, set[str]] = {}
    whole: set[str] = set()
    for path in dict.fromkeys(root for folder in folders for root in (folder.absolute(), folder.absolute().parent)):
        if not (path / "sweep.json").exists():
            continue
        names = {cell["id"]: cell["label"] for cell in Folder(path).read()["cells"]}
        for cell, state in states(Folder(path).read_events()).items():
            paths = [path / run for event in state.done.values() for run in event["runs"]]
            runs = {run.name for run in paths}
            if runs and state.covers("1-of-1") and all(run.exists() for run in paths):
                whole |= runs
            for run in runs if cell in names else ():
                labels.setdefault(run, set()).add(names[cell])
    return labels, whole


def _batches(runs: list[WholeRun], scratch: Path) -> Iterator[_Batch]:
    some: list[WholeRun] = []
    size = number = 0
    for run in runs:
        some.append(run)
        size += sum(part.samples.stat().st_size for part in run.parts if part.samples.exists())
        if size >= BATCH or run is runs[-1]:
            yield _Batch(some, scratch / f"{number}.arrow")
            some, size, number = [], 0, number + 1


def _read_all(batches: list[_Batch], processes: int) -> Iterable[_Read]:
    if min(processes, len(batches)) <= 1:
        yield from map(_read, batches)
        return
    with ProcessPoolExecutor(min(processes, len(batches)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(_read, batches)


def _read(batch: _Batch) -> _Read:
    """Write a batch's samples as an Arrow file, but for those of damaged runs."""
    counts, damaged, tables = {}, [], [sample_table("", [])]
    for run in batch.runs:
        try:
            table = _samples_of(run)
        except (RunError, pa.ArrowException) as error:
            damaged.append(f"run {run.id}: {error}")
            continue
        failed = table.num_rows - table["failure_kind"].null_count
        counts[run.id] = {
            "answered": table.num_rows - failed,
            "failed": failed,
            "missing": len(run.asked) - table.num_rows,
        }
        tables.append(table)
    table = pa.concat_tables(tables, promote_options="default")
    with pa.OSFile(str(batch.path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return _Read(counts, damaged)


def _samples_of(run: WholeRun) -> pa.Table:
    """The run's samples, one a document, in order. Raises RunError if a finished run lacks some."""
    tables = [sample_table(run.id, rows) for part in run.parts for rows in read_samples(part.samples, CHUNK)]
    table = pa.concat_tables([sample_table(run.id, []), *tables], promote_options="default")
    numbers = table["doc_id"].to_numpy()
    answered = np.asarray(table["failure_kind"].is_null())
    written = np.asarray(table["written"].to_pylist(), dtype=str)
    order = np.lexsort((written, answered, numbers))  # stable: of a document's rows, the last one counts
    last = np.ones(len(order), dtype=bool)
    last[:-1] = numbers[order][1:] != numbers[order][:-1]
    taken = [row for row in order[last].tolist() if int(numbers[row]) in run.asked]
    if len(taken) < len(run.asked) and not run.unfinished:
        raise RunError(
            f"{len(run.asked) - len(taken)} of {len(run.asked)} samples are missing, though run.json says done; run "
            f"that cell again"
        )
    return table.take(pa.array(taken, pa.int64()))


def _tables(paths: list[Path]) -> Iterator[pa.Table]:
    """Arrow files as tables of one schema, the stages in order; what one of them lacks is missing there."""
    tables = [pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in paths]
    schema = pa.unify_schemas([table.schema for table in tables])
    stages = sorted(name for name in schema.names if name.startswith("seconds_"))
    empty = schema.empty_table().select([*(name for name in schema.names if name not in stages), *stages])
    for table in tables:
        yield pa.concat_tables([empty, table], promote_options="default")


def _write(path: Path, tables: Iterator[pa.Table]) -> int:
    """Write tables as row groups, beside and renamed; returns the number of rows."""
    part, rows = path.with_name(path.name + ".part"), 0
    first = next(tables)
    try:
        with pq.ParquetWriter(part, first.schema, compression="zstd") as writer:
            for table in (first, *tables):
                writer.write_table(table, row_group_size=max(1, table.num_rows))
                rows += table.num_rows
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return rows

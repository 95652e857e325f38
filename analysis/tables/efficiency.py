"""The paper's efficiency table: time of the compressor and of the LLM's prefill, beside what was measured."""

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pandas as pd

from analysis.published import BACKBONES, paper_table
from analysis.results import Results
from analysis.sources.latency_rows import latency_cells
from analysis.tables.cell import MISSING, Cell, Table
from analysis.tables.paper import Row, average_cells, measured_by_benchmark, rows_of

TIMES = (("compression_ms", "Compression, ms", "seconds_compress"), ("prefill_ms", "Prefill, ms", "seconds_prefill"))


def efficiency_tables(
    results: Results | None, paper: str, allow: Collection[str] = (), *, common: bool = False
) -> list[Table]:
    """A table for each backbone; measured times are medians over the samples of Video-MME.

    Raises ResultsError as `main_tables` does, and where runs of one backbone come from different hardware.
    """
    measured = measured_by_benchmark(results, allow, common=common, also=("hardware",))
    return _tables(paper, measured, "the samples of Video-MME")


def latency_tables(paper: str, folder: Path) -> list[Table]:
    """The same from the rows of `python -m sweeps latency`. Raises ResultsError as `latency_cells`."""
    return _tables(paper, latency_cells(folder), f"the repeats of the latency protocol ({folder.name})")


def _tables(paper: str, measured: pd.DataFrame | None, over: str) -> list[Table]:
    printed = paper_table(paper, "efficiency")
    if measured is not None:
        asked = {float(text) for text in printed["retention_percent"]}
        measured = measured[(measured["retention_asked"] * 100).round(6).isin(asked)]
    return [_table(paper, str(name), group, measured, over) for name, group in printed.groupby("backbone", sort=False)]


def _table(paper: str, name: str, printed: pd.DataFrame, measured: pd.DataFrame | None, over: str) -> Table:
    rows = rows_of(printed, measured[measured["backbone"] == name] if measured is not None else None)
    columns = ["Method", "r"]
    body = [[Cell(row.label), Cell(f"{row.retention}%")] for row in rows]
    for column, title, seconds in TIMES:
        columns += [title, f"{title}, measured"]
        for cells_of_row, row in zip(body, rows, strict=True):
            cells_of_row += [Cell(row.printed.get(column, "")), _time(row, column, seconds)]
    for title, pairs in average_cells(rows):
        columns += [title, f"{title}, measured"]
        for cells_of_row, pair in zip(body, pairs, strict=True):
            cells_of_row += pair
    rules = frozenset(i for i, row in enumerate(rows) if i and row.retention != rows[i - 1].retention)
    machines = {cell["hardware"] for row in rows for cell in row.measured.values() if isinstance(cell["hardware"], str)}
    notes = [f"measured on {machine}: medians over {over}" for machine in sorted(machines)]
    title = f"{BACKBONES[name][0]}: cost as the paper of {paper} prints it, and as measured (difference)"
    return Table(title, tuple(columns), tuple(map(tuple, body)), 2, rules, tuple(notes))


def _time(row: Row, column: str, seconds: str) -> Cell:
    cell = row.measured.get("videomme")
    if cell is None or pd.isna(cell.get(seconds)) or json.loads(cell["setup"]).get("batch_size") not in (1, None):
        return MISSING  # a batch's times count whole for each of its samples
    value = 1000 * float(cell[seconds])
    printed = row.printed.get(column)
    difference = f"{value - float(printed):+.1f}" if printed else ""
    return replace(Cell(f"{value:.1f}", difference=difference), runs=cell["runs"])

"""The paper's main table: every printed number, and beside it what was measured here."""

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from analysis.measured import by_category, cells, comparable
from analysis.published import AVERAGED, BACKBONES, BENCHMARKS, Benchmark, paper_table
from analysis.results import Results
from analysis.stats import Interval
from analysis.tables.cell import MISSING, Cell, Table, mark_best, percent, seeds_text

BUDGETS = ("layer_average", "nominal")
"""What a run's retention may mean to stand beside the paper's, best first: its ratios are layer averages."""


def main_tables(
    results: Results | None, paper: str, allow: Collection[str] = (), *, common: bool = False
) -> list[Table]:
    """A table for each of the paper's backbones.

    Raises ResultsError as `paper_table`, `analysis.measured.comparable` and `analysis.stats.compare.compare` do.
    """
    printed = paper_table(paper, "main")
    measured = measured_by_benchmark(results, allow, common=common)
    return [_table(paper, name, group, measured) for name, group in printed.groupby("backbone", sort=False)]


def measured_by_benchmark(
    results: Results | None, allow: Collection[str] = (), *, common: bool, also: Collection[str] = ()
) -> pd.DataFrame | None:
    """Cells of the paper's backbones, `task` also `videomme/short` and so on; None without any."""
    if results is None:
        return None
    runs = results.runs.assign(backbone=results.runs["checkpoint"].map(paper_backbone))
    rank = runs["budget"].map({name: place for place, name in enumerate(BUDGETS)})
    runs = runs[runs["backbone"].notna() & runs["task"].isin({b.task for b in BENCHMARKS}) & rank.notna()]
    runs = runs[rank[runs.index] == rank.groupby([runs[name] for name in _ROW]).transform("min")[runs.index]]
    if (runs["kind"] == "published").all():
        return None
    chosen = comparable(Results(runs.assign(budget="as the paper's"), results.samples), allow, also)
    parts = (chosen, by_category(chosen, "videomme"))
    return pd.concat([cells(part, common=common) for part in parts if len(part.runs)], ignore_index=True)


_ROW = ["backbone", "task", "label", "retention_asked"]


def paper_backbone(checkpoint: str) -> str | None:
    """The paper's name of a checkpoint's backbone; None for any other checkpoint.

    >>> paper_backbone("llava-hf/llava-onevision-qwen2-7b-ov-hf")
    'llava_onevision_7b'
    """
    return next((name for name, (_, ids) in BACKBONES.items() if checkpoint in ids), None)


@dataclass(frozen=True)
class Row:
    """One row to come: what the paper prints of a method, and what was measured under one label."""

    retention: str  # per cent, as printed
    label: str
    method: str
    printed: dict[str, str]
    measured: dict[str, dict[str, Any]]  # by column of the CSV

    @property
    def average(self) -> Interval | None:
        """Measured mean of the benchmarks that the paper averages; None where one is missing.

        Their videos are different ones, so the squares of their intervals' half widths add up.
        """
        known = [self.measured[name]["accuracy"] for name in AVERAGED if name in self.measured]
        if len(known) < len(AVERAGED) or None in known:
            return None
        mean = sum(one.mean for one in known) / len(known)
        half = math.hypot(*((one.high - one.low) / 2 for one in known)) / len(known)
        return Interval(mean, mean - half, mean + half)


def rows_of(printed: pd.DataFrame, measured: pd.DataFrame | None) -> list[Row]:
    """Printed rows in the paper's order, one for each label that was measured of the method; what was measured of
    other methods stands at the end of its retention's block."""
    rows: list[Row] = []
    for percentage, block in printed.groupby("retention_percent", sort=False):
        found = _labels(measured, str(percentage))
        for line in block.to_dict("records"):
            texts = {str(k): str(v) for k, v in line.items()}
            labels = [key for key in found if key[0] == texts["method"]]
            rows += [Row(str(percentage), label, method, texts, found[method, label]) for method, label in labels]
            if not labels:
                rows.append(Row(str(percentage), texts["method"], texts["method"], texts, {}))
        others = [key for key in found if key[0] not in set(block["method"])]
        rows += [Row(str(percentage), label, method, {}, found[method, label]) for method, label in others]
    return rows


def _labels(measured: pd.DataFrame | None, percentage: str) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """(method, label) -> column of the CSV -> cell, at one retention."""
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    if measured is not None:
        here = measured[(measured["retention_asked"] * 100).round(6) == float(percentage)]
        columns = {task_name(benchmark): benchmark.column for benchmark in BENCHMARKS}
        for cell in here.sort_values("label", kind="stable").to_dict("records"):
            found.setdefault((cell["method"], cell["label"]), {})[columns[cell["task"]]] = cell
    return found


def task_name(benchmark: Benchmark) -> str:
    """The task that a benchmark's cells go by."""
    return f"{benchmark.task}/{benchmark.category}" if benchmark.category else benchmark.task


def _table(paper: str, name: str, printed: pd.DataFrame, measured: pd.DataFrame | None) -> Table:
    rows = rows_of(printed, measured[measured["backbone"] == name] if measured is not None else None)
    columns = ["Method", "r"]
    body: list[list[Cell]] = [[Cell(row.label), Cell(f"{row.retention}%")] for row in rows]
    benchmarks = [(b.title, _pairs(rows, b.column, _score)) for b in BENCHMARKS]
    for title, pairs in (*benchmarks, *average_cells(rows)):
        columns += [title, f"{title}, measured"]
        for cells_of_row, pair in zip(body, pairs, strict=True):
            cells_of_row += pair
    rules = frozenset(i for i, row in enumerate(rows) if i and row.retention != rows[i - 1].retention)
    notes = [*rounding_notes(printed), *_budget_notes(rows)]
    title = f"{BACKBONES[name][0]}: accuracy in % as the paper of {paper} prints it, and as measured (difference)"
    return Table(title, tuple(columns), tuple(map(tuple, body)), 2, rules, tuple(notes))


def average_cells(rows: list[Row]) -> Iterator[tuple[str, list[tuple[Cell, Cell]]]]:
    """The average and its share of all tokens: title, and printed and measured cell of every row."""
    full = next((row.average for row in rows if row.method == "full"), None)

    def average(row: Row, _column: str) -> tuple[float | None, Cell]:
        mean = row.average
        return (None, MISSING) if mean is None else (mean.mean, replace(percent(mean), runs=_averaged_runs(row)))

    def share(row: Row, _column: str) -> tuple[float | None, Cell]:
        if row.average is None or full is None or not full.mean:
            return None, MISSING
        value = row.average.mean / full.mean
        return value, Cell(f"{100 * value:.1f}", runs=_averaged_runs(row))

    yield "Average", _pairs(rows, "average", average)
    yield "% of all tokens", _pairs(rows, "relative_percent", share)


def _averaged_runs(row: Row) -> tuple[str, ...]:
    return tuple(sorted({run for name in AVERAGED for run in row.measured[name]["runs"]}))


def _score(row: Row, column: str) -> tuple[float | None, Cell]:
    found = row.measured.get(column)
    if found is None or found["accuracy"] is None:
        return None, MISSING
    cell = replace(percent(found["accuracy"]), seeds=seeds_text(found["seeds"]))
    return found["accuracy"].mean, replace(cell, tied=bool(found["tied"]), runs=found["runs"])


def _pairs(
    rows: list[Row], column: str, measured: Callable[[Row, str], tuple[float | None, Cell]]
) -> list[tuple[Cell, Cell]]:
    """Printed and measured cell of every row, the measured one with the difference of the two, the best marked."""
    pairs = []
    for row in rows:
        value, cell = measured(row, column)
        printed = row.printed.get(column, "")
        difference = f"{100 * value - float(printed):+.1f}" if printed and value is not None else ""
        pairs.append((Cell(printed), replace(cell, difference=difference)))
    return list(_marked(rows, pairs))


def _marked(rows: list[Row], pairs: list[tuple[Cell, Cell]]) -> Iterator[tuple[Cell, Cell]]:
    """The best of each retention's block in bold, printed and measured apart; all tokens are no competitor."""
    start = 0
    for end in range(1, len(rows) + 1):
        if end < len(rows) and rows[end].retention == rows[start].retention:
            continue
        among = [row.method != "full" for row in rows[start:end]]
        printed, ours = zip(*pairs[start:end], strict=True)
        yield from zip(mark_best(printed, among), mark_best(ours, among), strict=True)
        start = end


def rounding_notes(printed: pd.DataFrame) -> list[str]:
    """Where the paper's average, or its share of all tokens, is not what its own printed columns give."""
    columns = printed[list(AVERAGED)].astype(float).mean(axis=1)
    shares = 100 * columns / columns[printed["method"] == "full"].iloc[0]
    notes = []
    for row, mean, share in zip(printed.to_dict("records"), columns, shares, strict=True):
        where = f"{row['method']}, {row['retention_percent']}%"
        # Half a unit of the last printed digit, and no more for what binary fractions cannot hold.
        if abs(mean - float(row["average"])) > 0.05 + 1e-9:
            notes.append(f"{where}: the paper prints the average {row['average']}, its columns give {mean:.2f}")
        if abs(share - float(row["relative_percent"])) > 0.05 + 1e-9:
            notes.append(
                f"{where}: the paper prints {row['relative_percent']}% of all tokens, its columns give {share:.2f}%"
            )
    return notes


def _budget_notes(rows: list[Row]) -> list[str]:
    """Rows whose tokens a layer are not the ratio that they stand under, and questions without a score."""
    notes = []
    for row in rows:
        for column, cell in row.measured.items():
            where, spent = f"{row.label}, {row.retention}%", 100 * cell["layer_average"]
            if abs(spent - float(row.retention)) > 0.5:
                notes.append(f"{where}: measured at {spent:.1f}% of the tokens, mean over the LLM's layers")
            if cell["unscored"]:
                notes.append(f"{where}, {column}: {cell['unscored']} questions have no score and are left out")
    return list(dict.fromkeys(notes))

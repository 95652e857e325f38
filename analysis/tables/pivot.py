"""Any table of cells: what names the rows, what names the columns, and which values stand in them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from analysis.measured import CELL, MEANS
from analysis.results import ResultsError
from analysis.tables.cell import MISSING, Cell, Table, mark_best, percent, seeds_text

KEYS = {"retention": "retention_asked", "r": "retention_asked"}
"""Other names of a cell's keys."""

_NAMES = {"kept": "retention"}
_PLAIN = ("n", "seeds", "unscored", "method", "fields")


@dataclass(frozen=True)
class Pivot:
    """`rows=label columns=retention,task values=accuracy,flops_ratio`."""

    rows: tuple[str, ...] = ("label",)
    columns: tuple[str, ...] = ("retention_asked",)
    values: tuple[str, ...] = ("accuracy",)

    @classmethod
    def parse(cls, words: Sequence[str]) -> "Pivot":
        """From the command line. Raises ResultsError for anything but rows=, columns= and values=."""
        given: dict[str, tuple[str, ...]] = {}
        for word in words:
            name, equals, names = word.partition("=")
            if name not in ("rows", "columns", "values") or not equals or not names:
                raise ResultsError(f"--pivot {word!r}: expected rows=..., columns=... or values=..., names by comma")
            given[name] = tuple(KEYS.get(n, n) if name != "values" else _NAMES.get(n, n) for n in names.split(","))
        return cls(**given)

    def table(self, cells: pd.DataFrame, title: str = "Accuracy and cost") -> Table:
        """The pivot of `analysis.measured.cells`. Raises ResultsError for unknown names and for a cell that two
        cells would stand in."""
        self._check(cells)
        cells = cells.sort_values([*self.rows, *self.columns])
        keys = list(self.rows)
        across = list(dict.fromkeys(cells[list(self.columns)].itertuples(index=False, name=None)))
        found: dict[tuple[Any, ...], dict[tuple[Any, ...], dict[str, Any]]] = {}
        for cell in cells.to_dict("records"):
            row, column = tuple(cell[k] for k in keys), tuple(cell[k] for k in self.columns)
            twin = found.setdefault(row, {}).setdefault(column, cell)
            if twin is not cell:
                differ = [key for key in (*CELL, "kind") if twin[key] != cell[key]]
                raise ResultsError(
                    f"two cells for row {row}, column {column}: they differ in {', '.join(differ)}; "
                    f"add it to rows= or columns="
                )
        body: list[list[Cell]] = [[Cell(_key(part)) for part in row] for row in found]
        for column in across:
            for value in self.values:
                ours = [by_column.get(column) for by_column in found.values()]
                texts = [MISSING if cell is None else value_cell(cell, value) for cell in ours]
                if value == "accuracy":
                    texts = mark_best(texts, [cell is not None and cell["method"] != "full" for cell in ours])
                for line, text in zip(body, texts, strict=True):
                    line.append(text)
        names = [
            f"{', '.join(map(_key, c))}, {v}" if len(self.values) > 1 else ", ".join(map(_key, c))
            for c in across
            for v in self.values
        ]
        return Table(title, (*(key.replace("_asked", "") for key in keys), *names), tuple(map(tuple, body)), len(keys))

    def _check(self, cells: pd.DataFrame) -> None:
        stages = [name for name in cells if name.startswith("seconds_")]
        keys = (*CELL, "kind", "method", "fields")
        values = ("accuracy", "difference", *MEANS, *stages, *_PLAIN)
        for names, known in ((self.rows, keys), (self.columns, keys), (self.values, values)):
            if unknown := [name for name in names if name not in known]:
                raise ResultsError(f"--pivot: no {', '.join(unknown)}; known: {', '.join(known)}")


def _key(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def value_cell(cell: dict[str, Any], name: str) -> Cell:
    """One value of one of `analysis.measured.cells`: shares in per cent, times in milliseconds."""
    value, runs = cell[name], cell["runs"]
    if name in ("accuracy", "difference"):
        text = percent(value, signed=name == "difference")
        tied = name == "accuracy" and bool(cell["tied"])
        return replace(text, tied=tied, seeds=seeds_text(cell["seeds"]) if text.text else "", runs=runs)
    if name in _PLAIN:
        return Cell(str(value), runs=runs)
    if pd.isna(value):
        return MISSING
    return Cell(f"{1000 * value:.1f}" if name.startswith("seconds_") else f"{100 * value:.1f}", runs=runs)


def ablation_table(cells: pd.DataFrame, base: str) -> Table:
    """The rows that differ from `base` (a label) in one setting of the method, at each retention and task.

    Raises ResultsError where there is no such label, or nothing differs from it in one setting.
    """
    known = sorted(cells["label"].unique())
    if base not in known:
        raise ResultsError(f"--ablations {base!r}: no such label; there are {', '.join(known)}")
    own = cells[cells["label"] == base].iloc[0]
    fields = json.loads(own["fields"])
    changes = {base: "base"}
    for label, text in (
        cells[(cells["method"] == own["method"]) & (cells["label"] != base)].groupby("label")["fields"].first().items()
    ):
        other = json.loads(text)
        differ = [key for key in sorted(fields | other) if fields.get(key) != other.get(key)]
        if len(differ) == 1:
            changes[str(label)] = f"{differ[0]}: {fields.get(differ[0])} -> {other.get(differ[0])}"
    if len(changes) == 1:
        raise ResultsError(
            f"--ablations {base!r}: no other row of {own['method']} differs from it in one setting alone"
        )
    chosen = cells[cells["label"].isin(changes)].copy()
    chosen["label"] = chosen["label"].map(changes)
    several = ["budget"] if chosen["budget"].nunique() > 1 else []
    pivot = Pivot(("label",), ("retention_asked", "task", *several), ("accuracy", "difference"))
    table = pivot.table(chosen, f"{base}: one setting changed at a time; difference to all tokens")
    first = sorted(table.rows, key=lambda row: (row[0].text != "base", row[0].text))
    return replace(table, rows=tuple(first), rules=frozenset({1}))

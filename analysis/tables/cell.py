"""A table as data: cells with their intervals, marks and run ids, before any format."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from analysis.stats import Interval


@dataclass(frozen=True)
class Cell:
    """One cell. Texts are ready to print; `text` "" is a missing value."""

    text: str
    low: str = ""
    high: str = ""
    difference: str = ""
    seeds: str = ""  # how many were averaged, where there are several
    best: bool = False
    tied: bool = False  # not significantly below the best
    runs: tuple[str, ...] = ()


MISSING = Cell("")


@dataclass(frozen=True)
class Table:
    """Rows under `columns`; a rule stands before the rows whose numbers are in `rules`."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    keys: int = 1  # the first so many columns name the row
    rules: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def trace(self) -> list[str]:
        """One line for each cell that runs are behind: row, column, run ids."""
        return [
            f"{', '.join(key.text for key in row[: self.keys])} | {column}: {' '.join(cell.runs)}"
            for row in self.rows
            for column, cell in zip(self.columns, row, strict=True)
            if cell.runs
        ]


def percent(interval: Interval | None, *, signed: bool = False, digits: int = 1) -> Cell:
    """A share as per cent with its interval where there is one (NaN bounds: none); missing for None."""
    if interval is None:
        return MISSING
    sign = "+" if signed else ""
    mean, low, high = (f"{100 * value:{sign}.{digits}f}" for value in (interval.mean, interval.low, interval.high))
    return Cell(mean) if math.isnan(interval.low) else Cell(mean, low, high)


def seeds_text(count: int) -> str:
    """What a cell says of its seeds: nothing of a single one."""
    return str(count) if count > 1 else ""


def mark_best(cells: Sequence[Cell], among: Sequence[bool]) -> list[Cell]:
    """The cells with `best` on the highest number of those `among`; equal printed numbers are all best."""
    values = [float(cell.text) if cell.text and able else None for cell, able in zip(cells, among, strict=True)]
    top = max((value for value in values if value is not None), default=None)
    return [replace(cell, best=top is not None and value == top) for cell, value in zip(cells, values, strict=True)]

"""Scores that lmms-eval gets wrong, beside the corrected ones."""

from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.corrected import rescored
from analysis.measured import CELL, cells
from analysis.results import Results
from analysis.stats import Interval
from analysis.tables.cell import MISSING, Cell, Table, percent, seeds_text

TITLE = "Tasks that lmms-eval mis-scores (docs/tasks.md): accuracy in % as it reports it, and corrected (difference)"
_KEY = [*CELL, "kind"]


def corrected_table(results: Results, *, common: bool = False) -> Table | None:
    """A row for each cell of a mis-scored task; None where `results` (`analysis.measured.comparable`) has none.

    Raises ResultsError as `analysis.stats.compare.compare` does.
    """
    stock, corrected = rescored(results)
    if stock.runs.empty:
        return None
    both = cells(stock, common=common).merge(
        cells(corrected, common=common)[[*_KEY, "accuracy", "n"]], on=_KEY, suffixes=("", "_corrected")
    )
    changed, untold = _changed(stock, corrected)
    backbones = ["backbone"] if both["backbone"].nunique() > 1 else []
    budgets = ["budget"] if both["budget"].nunique() > 1 else []
    keys = [*backbones, "task", "label", *budgets, "retention_asked"]
    rows: list[tuple[Cell, ...]] = []
    notes, rules = [], []
    ordered = both.sort_values([*backbones, "task", "retention_asked", "label"], ascending=True)
    for cell in ordered.to_dict("records"):
        if rows and rows[-1][len(backbones)].text != cell["task"]:
            rules.append(len(rows))
        drawn = int(untold.reindex(list(cell["runs"])).sum())
        if drawn:
            notes.append(
                f"{cell['task']}, {cell['label']}, {cell['retention_asked']:g}: lmms-eval draws an option for an "
                f"answer that names none ({drawn} here); the records do not hold the draw"
            )
        stock_cell = MISSING if drawn else _accuracy(cell, cell["accuracy"])
        rows.append(
            (
                *(Cell(f"{cell[name]:g}" if isinstance(cell[name], float) else str(cell[name])) for name in keys),
                stock_cell,
                replace(_accuracy(cell, cell["accuracy_corrected"]), difference=_difference(stock_cell, cell)),
                Cell(str(int(changed.reindex(list(cell["runs"])).sum())), runs=cell["runs"]),
                Cell(str(cell["n_corrected"]), runs=cell["runs"]),
            )
        )
    columns = (*(name.replace("_asked", "") for name in keys), "lmms-eval", "corrected", "changed", "n")
    return Table(TITLE, columns, tuple(rows), len(keys), frozenset(rules), tuple(notes))


def _accuracy(cell: dict[str, Any], accuracy: Interval | None) -> Cell:
    return replace(percent(accuracy), seeds=seeds_text(cell["seeds"]), runs=cell["runs"])


def _difference(stock: Cell, cell: dict[str, Any]) -> str:
    if not stock.text or cell["accuracy_corrected"] is None:
        return ""
    return f"{100 * (cell['accuracy_corrected'].mean - cell['accuracy'].mean):+.1f}"


def _changed(stock: Results, corrected: Results) -> tuple[pd.Series, pd.Series]:
    """By run: answers that count for something else, and those that stock scores but whose score is not known."""
    before, after, run = stock.samples["score"], corrected.samples["score"], stock.samples["run"]
    differ = (before != after) & ~(before.isna() & after.isna())
    draws = before.isna() & after.notna() & stock.samples["task"].str.startswith("longvideobench")
    return differ.groupby(run).sum(), draws.groupby(run).sum()

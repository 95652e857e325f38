"""The report's table: a row a method, ratio and task, as texts with the numbers that they sort by."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.measured import spent
from analysis.plots.part import ROW, Part
from analysis.stats.compare import compare

MARKS = {"better": "▲ better", "worse": "▼ worse", "open": "open", "reference": "reference"}
"""What `compare` marks a row's difference with, never by colour alone."""


@dataclass(frozen=True)
class Value:
    """A cell: its text, its interval's text if it has one, and what it sorts by (None: last)."""

    text: str
    interval: str = ""
    key: float | str | None = None


@dataclass(frozen=True)
class Column:
    """A column of the table: its head, what the head means, and how a cell is made of a row of `table_of`."""

    title: str
    meaning: str
    value: Callable[[Mapping[str, Any]], Value]
    number: bool = True


def table_of(part: Part) -> pd.DataFrame:
    """`compare` and `spent` of a part in the order of its rows, with each row's `name` and `colour`."""
    compared = compare(part.results, common=True)
    table = compared.join(spent(part.results, compared).drop(columns="unscored"))
    keys = list(table[ROW].itertuples(index=False, name=None))
    place = {key: number for number, key in enumerate(part.rows)}
    return (
        table.assign(
            name=[part.rows[key].name for key in keys],
            colour=[part.rows[key].look.colour for key in keys],
            place=[place[key] for key in keys],
        )
        .sort_values(["place", "retention_asked"], ascending=[True, False], ignore_index=True)
        .drop(columns="place")
    )


def columns(table: pd.DataFrame) -> list[Column]:
    """The columns that `table` has something for; task and backbone where there are several."""
    stages = [name for name in table if name.startswith("seconds_")]
    wanted = [
        *(_text(name, name) for name in ("backbone", "task") if table[name].nunique() > 1),
        _text("name", "method"),
        Column("r", "asked share of video tokens kept", lambda row: _number(row["retention_asked"], "g")),
        Column("accuracy", "%, with its 95% interval by video", lambda row: _interval(row, "accuracy", "")),
        Column(
            "\N{MINUS SIGN} all tokens",
            "difference to all tokens on the same questions, points, with its 95% interval",
            lambda row: _interval(row, "difference", "+"),
        ),
        Column("verdict", "on that at .05, after Holm's correction over all rows of the task", _mark, number=False),
        *([_text("budget", "r means")] if table["budget"].nunique() > 1 else []),
        *(_share(name, title, meaning) for name, title, meaning in _SHARES if table[name].notna().any()),
        *(_milliseconds(name) for name in stages if table[name].notna().any()),
        *(_share(name, title, meaning) for name, title, meaning in _RATES if table[name].notna().any()),
        Column("questions", "with a score", lambda row: _number(row["questions"], ".0f")),
        *([_SEEDS] if table["seeds"].max() > 1 else []),
    ]
    return wanted


def cells(table: pd.DataFrame, shown: Sequence[Column]) -> list[list[Value]]:
    """The table's cells, row by row."""
    return [[column.value(row) for column in shown] for row in table.to_dict("records")]


_SHARES = (
    ("retention", "kept", "% of the video tokens left after the last cut"),
    ("layer_average", "layer average", "% of the video tokens, mean over the LLM's layers"),
    ("flops_ratio", "FLOPs", "% of the uncompressed LLM's, compressor included"),
    ("evidence_recall", "evidence", "% of the evidence tokens kept"),
)
_RATES = (
    ("unparsed", "unparsed", "% of the answers in which the scorer found no option; counted as wrong"),
    ("failed", "failed", "% of the questions without an answer; not counted"),
    ("missed", "missed", "% of the questions on which another budget was spent than asked"),
)


_SEEDS = Column("seeds", "runs with other seeds, averaged", lambda row: _number(row["seeds"], ".0f"))


def _text(name: str, title: str) -> Column:
    return Column(title, title, lambda row: Value(str(row[name]), key=str(row[name])), number=False)


def _share(name: str, title: str, meaning: str) -> Column:
    return Column(title, meaning, lambda row: _number(row[name], ".1f", 100))


def _milliseconds(name: str) -> Column:
    stage = name.removeprefix("seconds_")
    return Column(f"{stage} (ms)", f"median time of {stage} a question", lambda row: _number(row[name], ".1f", 1000))


def _number(value: Any, form: str, scale: float = 1) -> Value:
    return Value("") if pd.isna(value) else Value(f"{scale * value:{form}}", key=float(value))


def _interval(row: Mapping[str, Any], name: str, sign: str) -> Value:
    value, low, high = (100 * float(row[end]) for end in (name, f"{name}_low", f"{name}_high"))
    if math.isnan(value):
        return Value("")
    told = "" if math.isnan(low) else f"[{low:{sign}.1f}, {high:{sign}.1f}]"
    return Value(f"{value:{sign}.1f}", told, value)


def _mark(row: Mapping[str, Any]) -> Value:
    if pd.isna(row["mark"]):
        return Value("")
    p = "" if pd.isna(row["p_holm"]) else f"p {'<' if row['p_holm'] < 0.001 else '='} {max(row['p_holm'], 0.001):.3f}"
    return Value(MARKS[row["mark"]], p, row["difference"] if row["mark"] != "reference" else 0.0)

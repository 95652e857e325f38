"""Rows to frames with fixed columns and types."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from analysis.results import RUN_COLUMNS, SAMPLE_COLUMNS

_TEXT = {"run", "task", "document", "video", "category", "prediction", "target", "failure"}
_FLAGS = {"parsed", "missed"}
_FIXED = [name for name in SAMPLE_COLUMNS if "<" not in name]
_RUN_NUMBERS = ("retention_asked", "seed", "frames", "documents", "score")


def run_frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Rows of `Results.runs`; numbers as float64 with NaN for missing, all else text."""
    frame = pd.DataFrame(rows, columns=list(RUN_COLUMNS))
    return frame.astype({name: "float64" if name in _RUN_NUMBERS else "str" for name in frame})


def sample_frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Rows of `Results.samples`, `seconds_<stage>` columns behind the fixed ones."""
    frame = pd.DataFrame(rows)
    stages = sorted(name for name in frame if name.startswith("seconds_"))
    return typed(frame.reindex(columns=[*_FIXED, *stages]))


def typed(samples: pd.DataFrame) -> pd.DataFrame:
    """The frame with each column's type: text, nullable flags, doc_id an integer, all else float64."""
    kinds = {name: "str" if name in _TEXT else "boolean" if name in _FLAGS else "float64" for name in samples}
    return samples.astype({**kinds, "doc_id": "int64"})

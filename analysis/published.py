"""Numbers that papers print, from `results/published`: as text, digit for digit, and as rows of `analysis.results`."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.results import RUN_COLUMNS, ResultsError

FOLDER = Path(__file__).resolve().parents[1] / "results" / "published"

PAPERS = ("cacovid",)
"""Papers whose tables are there."""


@dataclass(frozen=True)
class Benchmark:
    """A column of the main table and where lmms-eval measures it."""

    column: str  # in the CSV
    title: str
    task: str  # lmms-eval's name
    category: str | None = None  # only the samples of this category


BENCHMARKS = (
    Benchmark("longvideobench", "LongVideoBench", "longvideobench_val_v"),
    Benchmark("mlvu_dev", "MLVU dev", "mlvu_dev"),
    Benchmark("mlvu_test", "MLVU test", "mlvu_test"),
    Benchmark("videomme_short", "Video-MME short", "videomme", "short"),
    Benchmark("videomme_medium", "Video-MME medium", "videomme", "medium"),
    Benchmark("videomme_long", "Video-MME long", "videomme", "long"),
    Benchmark("videomme", "Video-MME", "videomme"),
)
AVERAGED = ("longvideobench", "mlvu_dev", "mlvu_test", "videomme")
"""Columns whose mean is the paper's average."""

BACKBONES = {
    "llava_onevision_7b": (
        "LLaVA-OneVision-7B",
        ("llava-hf/llava-onevision-qwen2-7b-ov-hf", "lmms-lab/llava-onevision-qwen2-7b-ov"),
    ),
    "qwen2_5_vl_3b": ("Qwen2.5-VL-3B", ("Qwen/Qwen2.5-VL-3B-Instruct",)),
}
"""The paper's backbones: title, and the hub ids of their weights."""


def paper_table(paper: str, table: str) -> pd.DataFrame:
    """`main` or `efficiency` of a paper; every cell the printed text, "" where the paper has none.

    Raises ResultsError for one that is not there.
    """
    path = FOLDER / f"{paper}_{table}_table.csv"
    if not path.is_file():
        known = sorted(file.name for file in FOLDER.glob("*_table.csv"))
        raise ResultsError(f"no published {table} table of {paper!r}: expected {path}; there are {known}")
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def published_runs(path: Path) -> pd.DataFrame:
    """A paper's table as rows of `Results.runs`, one a printed score, without samples.

    A duration class of Video-MME is a task of its own, `videomme/short`. Raises ResultsError for a CSV without the
    columns backbone, method and retention_percent.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if missing := sorted({"backbone", "method", "retention_percent"} - set(table)):
        raise ResultsError(f"{path} has no column {', '.join(missing)}: no published table; it has {', '.join(table)}")
    tasks = {b.column: f"{b.task}/{b.category}" if b.category else b.task for b in BENCHMARKS}
    rows = [
        {
            **dict.fromkeys(RUN_COLUMNS),
            "run": f"{path.stem}/{row['backbone']}/{row['method']}/{row['retention_percent']}/{column}",
            "source": str(path),
            "kind": "published",
            "label": f"{row['method']} (published)",
            "backbone": row["backbone"],
            "checkpoint": row["backbone"],
            "method": row["method"],
            "fields": "{}",
            "budget": "nominal",
            "retention_asked": float(row["retention_percent"]) / 100,
            "task": task,
            "setup": "{}",
            "score": float(row[column]) / 100,
        }
        for row in table.to_dict("records")
        for column, task in tasks.items()
        if row.get(column)
    ]
    return pd.DataFrame(rows, columns=list(RUN_COLUMNS))

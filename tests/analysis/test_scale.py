"""The benchmark of a million samples writes what the reader of collected Parquet takes."""

from pathlib import Path

import pandas as pd
import pytest

from analysis.load import load
from analysis.measured import cells, comparable
from benchmarks.analysis_scale import made_results, tabulate, write_collected


@pytest.mark.parametrize("task", ["videomme", "mlvu_test"])
def test_made_parquet_is_read_back_and_tabulated(tmp_path: Path, task: str) -> None:
    made = made_results(5, 40, videos=10, task=task)
    write_collected(made, tmp_path)
    read = load(tmp_path)
    for name in ("score", "category", "video", "retention", "layer_average"):
        given = made.samples.sort_values(["run", "doc_id"], ignore_index=True)[name]
        pd.testing.assert_series_equal(read.samples[name], given, check_dtype=False)
    assert cells(comparable(read))["n"].sum() == made.samples["score"].notna().sum()


def test_a_command_that_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ended with 2: error: no finished run below"):
        tabulate(tmp_path)

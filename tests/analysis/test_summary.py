"""Run directories to one table: intervals, the paired difference, seeds, the newest run, and refusals."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.load import load
from analysis.results import ResultsError, ResultsWarning
from analysis.stats import clustered_mean
from analysis.summary import summary, to_markdown
from made_runs import write_run


def test_difference_is_paired_and_the_newest_run_counts(tmp_path: Path) -> None:
    write_run(tmp_path, "a", "full", [1, 1, 0, 1])
    write_run(tmp_path, "b", "random", [0, 0, 0, 0], retention=0.25, seed=0, started="2026-01-01")
    write_run(tmp_path, "c", "random", [1, 0, 0, 1], retention=0.25, seed=0, started="2026-01-02")
    write_run(tmp_path, "d", "random", [1, 1, 1, 1], retention=0.25, seed=1)
    write_run(tmp_path, "e", "uniform", [1, 0, 0, 1], retention=0.25)
    table = summary(tmp_path).set_index("method")
    assert list(table.index) == ["full", "random", "uniform"]
    assert table.loc["random", "accuracy"].mean == 0.75, "both seeds, question by question; of seed 0 the newest run"
    assert table.loc["random", "seeds"] == 2 and table.loc["uniform", "seeds"] == 1
    assert table.loc["uniform", "vs all tokens"].mean == -0.25
    assert table.loc["full", "vs all tokens"] is None
    assert "| random | 0.25 | 25.0% |" in to_markdown(table.reset_index())


def test_tasks_are_rows_of_their_own(tmp_path: Path) -> None:
    write_run(tmp_path, "a", "full", [1, 1, 1, 1])
    write_run(tmp_path, "b", "full", [0, 0, 0, 1], setup={"task": "u"})
    table = summary(tmp_path)
    assert list(table["method"]) == ["t: full", "u: full"]
    assert [one.mean for one in table["accuracy"]] == [1, 0.25]


def test_runs_of_another_checkpoint_are_not_compared(tmp_path: Path) -> None:
    write_run(tmp_path, "a", "full", [1, 1], started="2026-01-02", checkpoint="new")
    write_run(tmp_path, "b", "uniform", [1, 0], retention=0.25, started="2026-01-01", checkpoint="old")
    assert list(summary(tmp_path)["method"]) == ["full"]


def test_unfinished_runs_are_left_out_and_nothing_is_an_error(tmp_path: Path) -> None:
    write_run(tmp_path, "a", "full", [1, 1], state="running")
    left_out = pytest.warns(ResultsWarning, match=r"run a .* is left out: running in .*, expected done")
    with left_out, pytest.raises(ResultsError, match="no finished run below"):
        load(tmp_path)


def test_missing_scores_are_refused_not_zero(tmp_path: Path) -> None:
    write_run(tmp_path, "a", "full", [1, None])
    with pytest.raises(ResultsError, match=r"1 of 2 samples .* have no score"):
        summary(tmp_path)
    out = subprocess.run(
        [sys.executable, "-m", "analysis", "summary", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert out.returncode == 2 and out.stderr.startswith("error: 1 of 2 samples")


def test_interval_covers_the_truth_under_clustering() -> None:
    """95% intervals from 300 simulated benchmarks of 60 videos x 4 questions that share a video effect."""
    rng, covered = np.random.default_rng(0), 0
    clusters = pd.Series(np.repeat(np.arange(60), 4))
    for _ in range(300):
        video = rng.beta(2, 2, 60)
        values = pd.Series((rng.random(240) < np.repeat(video, 4)).astype(float))
        interval = clustered_mean(values, clusters, resamples=400)
        covered += interval.low <= 0.5 <= interval.high
    assert 0.91 <= covered / 300 <= 0.985


def test_clusters_widen_the_interval() -> None:
    values = pd.Series(np.repeat([0.0, 1.0] * 10, 5))
    by_video = clustered_mean(values, pd.Series(np.repeat(np.arange(20), 5)))
    by_question = clustered_mean(values, pd.Series(np.arange(100)))
    assert by_video.high - by_video.low > 1.5 * (by_question.high - by_question.low)


def test_no_and_missing_values_are_refused() -> None:
    with pytest.raises(ValueError, match="no values to average"):
        clustered_mean(pd.Series([], dtype=float), pd.Series([], dtype=int))
    with pytest.raises(ValueError, match="1 of 2 values are missing"):
        clustered_mean(pd.Series([1.0, None]), pd.Series([0, 1]))

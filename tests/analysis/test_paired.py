"""One method against the others: seeds averaged, questions paired, budgets at least equal."""

from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.paired import paired, paired_markdown
from analysis.results import ResultsError, ResultsWarning
from made_runs import write_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_run(tmp_path, "full", "full", [1, 1, 1, 1])
    for policy, scores in (("p0", [1, 1, 1, 0]), ("p1", [1, 1, 0, 0])):
        write_run(
            tmp_path,
            policy,
            "cacovid",
            scores,
            retention=0.25,
            policy=policy,
            policy_sha256=f"{policy}c",
            frame_cap=4.0,
        )
    for seed, scores in ((0, [1, 0, 0, 0]), (1, [0, 0, 0, 0])):
        write_run(tmp_path, f"random{seed}", "random", scores, retention=0.25, seed=seed)
    # Inside the LLM: what is left after the cut is not what its layers saw on average.
    write_run(tmp_path, "low", "inside", [0, 0, 0, 0], retention=0.1)
    write_run(tmp_path, "fair", "inside", [1, 1, 1, 1], retention=0.3)
    write_run(tmp_path, "rich", "inside", [0, 0, 0, 0], retention=0.9)
    return tmp_path


def test_seeds_are_averaged_and_the_nearest_budget_is_compared(runs: Path) -> None:
    table = paired(runs, "cacovid").set_index("method")
    assert list(table.index) == ["inside", "random"], "the best first"
    assert table.loc["random", "reference accuracy"] == 0.625 and table.loc["random", "accuracy"] == 0.125
    assert table.loc["random", "difference"].mean == 0.5
    assert table.loc["inside", "share"] == 0.3 and table.loc["inside", "difference"].mean == -0.375
    text = paired_markdown(paired(runs, "cacovid"))
    assert "| 0.25 | random | 25.0% | 12.5 | 62.5 | +50.0 [" in text
    inside = next(line for line in text.splitlines() if "inside" in line)
    assert inside.endswith("| not above |") or inside.endswith("| below |")


def test_an_unknown_reference_is_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ResultsError, match=r"no finished run of 'fastv' below .*; it has \['cacovid', 'full'"):
        paired(runs, "fastv")
    assert main(["paired", str(runs), "-o", str(runs / "table.md")]) == 0
    assert (runs / "table.md").read_text() in capsys.readouterr().out


def test_questions_that_a_method_refused_are_left_out_on_both_sides(runs: Path) -> None:
    write_run(runs, "floor", "refusing", [1, None, 0, 1], retention=0.25)
    with pytest.warns(ResultsWarning, match=r"1 of 36 samples below .* have no score .* and are left out"):
        table = paired(runs, "cacovid").set_index("method")
    assert table.loc["refusing", "accuracy"] == pytest.approx(2 / 3)
    assert table.loc["refusing", "reference accuracy"] == 0.5, "of the questions 0, 2 and 3"
    assert table.loc["random", "reference accuracy"] == 0.625, "other pairs have all questions"

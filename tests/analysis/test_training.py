"""The table of training runs, and how their folders are named."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from analysis.__main__ import main


def write(folder: Path, held_out: list[float], reward: float = 0.5) -> None:
    """A run whose last validations at r = .25 and .10 are `held_out`, and whose first ones are lower."""
    folder.mkdir(parents=True)
    rows = [{"step": step, "token": reward + 0.03 * (step > 20), "greedy": 0.25} for step in range(1, 41)]
    for step in (20, 40):
        rows[step - 1] |= {f"validation@{r}": v - (40 - step) / 100 for r, v in zip((0.25, 0.1), held_out, strict=True)}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 41, "tok')


def table(capsys: pytest.CaptureFixture[str], *items: object) -> dict[str, list[str]]:
    assert main(["training", *map(str, items)]) == 0
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    return {label: cells for label, *cells in (row for row in rows if len(row) > 1)}


def test_seeds_stand_side_by_side_and_differences_are_paired(tmp_path: Path, capsys) -> None:
    base, other = np.array([0.8, 0.6, 0.7]), np.array([0.75, 0.5, 0.55])
    for seed in range(3):
        write(tmp_path / f"base-{seed}", [0.9, base[seed]])
        write(tmp_path / f"ocss-{seed}", [0.9, other[seed]], reward=0.3)
    write(tmp_path / "short-1", [0.95, 0.65])
    rows = table(capsys, tmp_path / "base-*", tmp_path / "ocss-*", tmp_path / "short-1", tmp_path / "base-0")
    assert rows["run"] == [
        "steps",
        "held out, r = 25%",
        "held out, r = 10%",
        "rollouts, last 20 steps",
        "best tokens, last 20 steps",
    ]
    assert rows["base"] == [
        "40",
        "90.0 (90.0 / 90.0 / 90.0)",
        "70.0 (80.0 / 60.0 / 70.0)",
        "53.0 (53.0 / 53.0 / 53.0)",
        "25.0 (25.0 / 25.0 / 25.0)",
    ]
    low, high = stats.ttest_rel(100 * other, 100 * base).confidence_interval(0.95)
    assert rows["ocss"][2] == f"60.0 (75.0 / 50.0 / 55.0), -10.0 [{low:.1f}, {high:.1f}]"
    assert rows["ocss"][1].endswith("+0.0 [0.0, 0.0]")
    assert rows["short"] == ["40", "95.0, +5.0", "65.0, +5.0", "53.0, +0.0", "25.0, +0.0"], (
        "of one seed there is no interval"
    )


def test_a_label_takes_folders_of_any_name(tmp_path: Path, capsys) -> None:
    write(tmp_path / "x" / "0", [0.9, 0.8])
    write(tmp_path / "x" / "1", [0.9, 0.6])
    assert table(capsys, f"mine={tmp_path}/x/*")["mine"][2] == "70.0 (80.0 / 60.0)"


def test_runs_without_a_validation_are_refused(tmp_path: Path, capsys) -> None:
    (tmp_path / "new-0").mkdir()
    assert main(["training", str(tmp_path / "new-0")]) == 2
    assert "no metrics.jsonl under" in capsys.readouterr().err
    (tmp_path / "new-0" / "metrics.jsonl").write_text('{"step": 1, "token": 0.5}\n')
    assert main(["training", str(tmp_path / "new-0")]) == 2
    assert "no run was validated; expected `validation@R` in metrics.jsonl" in capsys.readouterr().err

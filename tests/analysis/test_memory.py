"""Accuracy against peak memory: rows of the latency protocol beside runs, and what does not belong together."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.load import load
from analysis.plots.memory import peak_memory
from analysis.plots.part import Part, parts
from analysis.results import ResultsError, ResultsWarning
from analysis.sources.latency_rows import ALLOCATED, MEMORY_COLUMNS, memory_rows
from made_runs import write_run

MIB = 2**20


def row(label: str, retention: float, mib: float | None, **given: Any) -> dict[str, Any]:
    """As the latency protocol writes it, as far as memory goes."""
    row = {"label": label, "method": label.split(" ")[0], "retention": retention, "fields": {}, "frames": 16}
    row |= {"status": "measured", "batch": 1, "budget": "nominal", "backbone": "testbed", "block": "b"}
    row["memory"] = {"above_weights_bytes": mib and int(mib * MIB), "how": ALLOCATED if mib else None}
    return row | given


def write_rows(folder: Path, *rows: dict[str, Any], **block: str) -> Path:
    """The folder, with all rows in one block."""
    folder.mkdir()
    (folder / "latency.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    about = {"block": "b", "family": "llava_ov", "dtype": "float32", "attention": "sdpa", "device_name": "a GPU"}
    (folder / "env.jsonl").write_text(json.dumps(about | block) + "\n")
    return folder


ROWS = (
    row("uncompressed", 1, 2048, method="full"),
    row("fastv", 0.25, 900),
    row("random (seed 1)", 0.25, 640, fields={"seed": 1}),
    row("random (seed 2)", 0.25, 512, fields={"seed": 2}),
    row("fastv", 0.25, 700),  # again, later
    row("fastv", 0.25, 1, batch=4),
    row("fastv", 0.25, 1, budget="flops"),
    row("fastv (layer=1)", 0.25, 1),
    row("random", 0.1, None),
    row("fastv", 0.25, 1, frames=32),
)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name, method, scores, retention in (
        ("full", "full", [1, 1, 1, 0], 1.0),
        ("fastv", "fastv", [1, 0, 1, 0], 0.25),
        ("random", "random", [1, 0, 0, 0], 0.25),
        ("least", "random", [0, 0, 0, 1], 0.1),
    ):
        write_run(tmp_path / "runs", name, method, scores, retention=retention)
    return tmp_path / "runs"


def part_of(runs: Path, memory: pd.DataFrame | None) -> Part:
    (part,) = parts(load(runs), memory=memory)
    return part


def test_rows_of_the_protocol_are_found_by_label_ratio_and_budget(runs: Path, tmp_path: Path) -> None:
    rows = memory_rows(write_rows(tmp_path / "l", *ROWS))
    assert list(rows) == list(MEMORY_COLUMNS) and len(rows) == 8
    part = part_of(runs, rows)
    with pytest.warns(ResultsWarning, match=r"no peak memory of random at 0\.1: not drawn against it"):
        found, where = peak_memory(part, part.accuracy)
    by_row = dict(zip(zip(part.accuracy["label"], part.accuracy["retention_asked"], strict=True), found, strict=True))
    assert by_row[("full", 1)] == 2048 * MIB and by_row[("fastv", 0.25)] == 700 * MIB
    assert by_row[("random", 0.25)] == 512 * MIB and pd.isna(by_row[("random", 0.1)])
    assert where == "testbed on a GPU"


def test_the_command_draws_it(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = write_rows(tmp_path / "l", *ROWS), tmp_path / "out"
    command = ["plots", str(runs), "-o", str(out), "--only", "memory", "--format", "svg"]
    assert main([*command, "--latency", str(folder)]) == 0
    told = capsys.readouterr()
    assert told.out.split() == [f"{out}/memory.svg"] and "no peak memory of random at 0.1" in told.err
    drawn = (out / "memory.svg").read_bytes()
    assert main([*command, "--latency", f"testbed={folder}"]) == 0 and (out / "memory.svg").read_bytes() == drawn
    capsys.readouterr()
    assert main([*command, "--latency", f"qwen={folder}"]) == 2
    assert "--latency qwen=" in (error := capsys.readouterr().err) and "it has rows of testbed" in error
    assert main(command) == 2
    assert "runs of t, llava_ov hold no peak memory; measure it with `python -m sweeps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "block", "words"),
    [
        ([row("fastv", 0.25, None)], {}, "no row at batch 1 whose peak memory an accelerator told .* end_to_end=true"),
        ([row("fastv", 0.25, 1)], {"family": "qwen2_5_vl"}, "the latency rows are of qwen2_5_vl, expected llava_ov"),
        (
            [row("fastv", 0.25, 1), row("fastv", 0.25, 9, backbone="llava_ov_7b")],
            {},
            "are of llava_ov_7b and testbed, expected one llava_ov; name it: --latency llava_ov_7b=FOLDER",
        ),
        ([row("fastv", 0.25, 1, frames=32)], {}, "with frames 32, the runs of t, llava_ov with 16; measure it as"),
        ([row("fastv", 0.25, 1)], {"dtype": "bfloat16"}, "with dtype bfloat16, the runs of t, llava_ov with float32"),
        ([row("fastv", 0.25, 1)], {"attention": "eager"}, "with attention eager, the runs of t, llava_ov with sdpa"),
    ],
)
def test_rows_that_do_not_belong_to_the_runs_are_refused(
    runs: Path, tmp_path: Path, rows: list[dict[str, Any]], block: dict[str, str], words: str
) -> None:
    folder = write_rows(tmp_path / "l", *rows, **block)
    with pytest.raises(ResultsError, match=words):
        part = part_of(runs, memory_rows(folder))
        peak_memory(part, part.accuracy)


def test_rows_of_two_machines_are_refused(runs: Path, tmp_path: Path) -> None:
    rows = memory_rows(write_rows(tmp_path / "l", *ROWS))
    rows.loc[0, "hardware"] = "another"
    with pytest.raises(ResultsError, match="the latency rows are of a GPU and another, expected one machine"):
        peak_memory(part := part_of(runs, rows), part.accuracy)

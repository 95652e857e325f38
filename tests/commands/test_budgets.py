"""`budgets`: the four figures of a method, and its floor where a ratio cannot be met."""

import pytest

from cacovid.commands.line import main

SMALL = ["budgets", "--llm", "qwen2-0.5b", "--frames", "4", "--side", "4", "--retention", "0.5", "0.1", "--methods"]


def table(capsys: pytest.CaptureFixture[str], *methods: str) -> dict[tuple[str, str], list[str]]:
    assert main([*SMALL, *methods]) == 0
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    return {(row[0], row[1]): row[2:] for row in rows[1:]}


def test_a_cut_inside_the_llm_has_four_different_figures(capsys):
    rows = table(capsys, "fastv", "uniform")
    # K = 2 of 24 layers, 64 tokens: 32 stay; (2 * 64 + 22 * 32) / 24 = 34.7
    assert rows["fastv", "nominal"][0].startswith("100.0 / 50.0 / 54.2 / ")
    assert rows["fastv", "layer_average"][0].startswith("100.0 / 45.3 / 49.9 / ")
    assert rows["uniform", "layer_average"] == ["50.0 / 50.0 / 50.0 / 50.0", "9.4 / 9.4 / 9.4 / 9.4"]
    assert float(rows["fastv", "flops"][0].split(" / ")[3]) == pytest.approx(50, abs=1)


def test_floors_and_refusals_are_cells(capsys):
    rows = table(capsys, "fastv:layer=12", "dycoke:loop=fixed", "cacovid")
    assert rows["fastv:layer=12", "layer_average"][1] == "floor 50.8"  # (12 * 64 + 12 * 1) / 24 of 64
    assert rows["dycoke:loop=fixed", "nominal"][1].startswith("floor ")
    assert "needs policy" in rows["cacovid", "nominal"][0]

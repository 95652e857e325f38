"""What README shows of the demo: its figure is drawn of the same numbers as its table, and its words say the same."""

import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "results" / "demo"
README = (ROOT / "README.md").read_text(encoding="utf-8")
NUMBERS = re.compile(r"(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]")


@pytest.fixture(scope="module")
def table() -> list[dict[str, str]]:
    """Rows of the demo's table."""
    lines = (DEMO / "table.md").read_text(encoding="utf-8").splitlines()
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(head, row, strict=True)) for row in rows]


def _accuracies(table: list[dict[str, str]], methods: str) -> list[float]:
    """Of the compressed rows whose method matches."""
    rows = [row for row in table if re.match(methods, row["method"]) and row["r asked"] != "1.00"]
    return [float(row["accuracy"].split()[0]) for row in rows]


def _whole(percent: float) -> int:
    """Half rounds up, as in prose."""
    return int(percent + 0.5)


def test_the_figure_is_drawn_of_the_tables_numbers(table: list[dict[str, str]]) -> None:
    """Every accuracy with its interval, ratio and number of seeds; the figure leaves methods at r = 1 out."""
    with Image.open(DEMO / "figures" / "retention.png") as image:
        _, *lines = image.text["Description"].splitlines()
    drawn = []
    for line in lines:
        where, _, numbers = line.rpartition(": ")
        ratio = re.search(r"r = ([\d.]+)%(?:, (\d+) seeds)?$", where)
        drawn.append((float(ratio[1]), int(ratio[2] or 1), NUMBERS.fullmatch(numbers).groups()))
    told = [
        (100 * float(row["r asked"]), int(row["seeds"]), NUMBERS.fullmatch(row["accuracy"]).groups())
        for row in table
        if row["method"] == "full" or row["r asked"] != "1.00"
    ]
    assert sorted(drawn) == sorted(told)


def test_the_words_of_the_figure_say_what_the_table_says(table: list[dict[str, str]]) -> None:
    words = re.search(r'<img src="results/demo/figures/retention.png" width="\d+" alt="([^"]+)">', README)[1]
    ours = {row["r asked"]: row["accuracy"].split()[0] for row in table if row["method"] == "cacovid"}
    full = next(row["accuracy"] for row in table if row["method"] == "full").split()[0]
    assert "stays at the accuracy of all tokens down to r = .15" in words
    assert min(float(ours[ratio]) for ratio in ("0.25", "0.20", "0.15")) >= float(full)
    assert f"answers {_whole(float(ours['0.10']))}% at r = .10" in words
    for methods, named in (
        (r"attention_topk .*variant=B", "attention top-k inside the LLM"),
        (r"attention_topk .*variant=A1", "attention received in the vision tower"),
        (r"random|uniform|fewer_frames", "random, uniform and fewer frames"),
        (r"downsample", "downsampling"),
    ):
        found = _accuracies(table, methods)
        assert f"{named} {_whole(min(found))} to {_whole(max(found))}%" in words
    assert f"on {table[0]['n']} test-bed questions" in words
    cells = sum(int(row["seeds"]) for row in table)
    assert f"{cells} cells of {table[0]['n']} questions" in README


def test_the_demo_writes_what_is_shown() -> None:
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "analysis summary results/demo -o results/demo/table.md" in recipe
    assert "analysis plots results/demo -o results/demo/figures --only retention" in recipe
    assert "(results/demo/table.md)" in README

"""`curves` from the command line: one picture of several runs, and refusals with their words."""

import json

import pytest
from PIL import Image

from cacovid.commands.line import main
from cacovid.training.curves import draw_curves


@pytest.fixture
def runs(tmp_path):
    """Two seeds of one setting; the second was killed in the middle of a line."""
    for seed in range(2):
        folder = tmp_path / f"seed{seed}"
        folder.mkdir()
        rows = [
            {"step": s, "token": s / 9, "norm": 1.0} | ({"validation@0.1": 0.5} if s % 3 == 0 else {})
            for s in range(1, 9)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 9, "to')
    return tmp_path


def test_seeds_under_one_label(runs, capsys) -> None:
    picture = runs / "out.png"
    assert main(["curves", f"ocss={runs}/seed*", f"{runs}/seed0", "-o", str(picture)]) == 0
    assert capsys.readouterr().out.strip() == str(picture)
    assert Image.open(picture).width > 3 * 350, "three panels: held-out reward, token reward, gradient norm"


def test_refusals(runs, capsys) -> None:
    assert main(["curves", f"x={runs}/none*"]) == 2
    assert "no metrics.jsonl under" in capsys.readouterr().err
    empty = runs / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(ValueError, match=r"no metrics in .*empty.jsonl"):
        draw_curves({"": [empty]}, runs / "out.png")

"""The picture of one training run."""

import json

import pytest
from PIL import Image

from cacovid.training.curves import draw_curves


def test_a_run_that_was_killed_in_the_middle_of_a_line(tmp_path) -> None:
    file, picture = tmp_path / "metrics.jsonl", tmp_path / "curves.png"
    rows = [
        {"step": s, "token": s / 9, "norm": 1.0} | ({"validation@0.1": 0.5} if s % 3 == 0 else {}) for s in range(1, 9)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 9, "to')
    draw_curves(file, picture)
    assert Image.open(picture).width > 3 * 350, "three panels: held-out reward, token reward, gradient norm"


def test_a_run_without_a_step(tmp_path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"no metrics in .*empty.jsonl"):
        draw_curves(tmp_path / "empty.jsonl", tmp_path / "out.png")

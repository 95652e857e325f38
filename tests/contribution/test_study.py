"""The contribution study on the shipped test bed, by the real command lines."""

import json

import pytest

from analysis.__main__ import main as analysis
from cacovid.commands.line import main
from cacovid.contribution import study as module

COMMAND = ["contribution", "random", "attention_topk:variant=B1,layer=2", "--videos", "2", "--sets", "24", "-o"]


def test_killed_and_started_again_it_measures_what_is_missing(tmp_path, capsys, monkeypatch) -> None:
    real = module._measure

    def die(backbone, contestants, study, group, number):
        if number == 1:
            raise KeyboardInterrupt
        return real(backbone, contestants, study, group, number)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_measure", die)
        assert main([*COMMAND, str(tmp_path)]) == 130
    with open(tmp_path / "rows.jsonl", "a") as file:
        file.write('{"video": "test-000001", "kind": "color", "label": "random"}\n{"vid')
    assert main([*COMMAND, str(tmp_path)]) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["done"] for row in rows if "done" in row] == ["test-000000", "test-000001"]
    measured = [row for row in rows if "label" in row]
    assert len(measured) == 2 * 7 * 4 and len({(r["video"], r["kind"], r["label"]) for r in measured}) == len(measured)
    # `random` draws by the video alone: the same set for all of its questions.
    assert {row["sensitivity"] for row in measured if row["label"] == "random"} == {0.0}
    assert any(row["sensitivity"] > 0 for row in measured if row["label"].startswith("attention"))

    capsys.readouterr()
    assert analysis(["contribution", str(tmp_path), "-o", str(tmp_path / "table.md")]) == 0
    text = capsys.readouterr().out
    assert (tmp_path / "table.md").read_text() in text
    assert "| the evidence itself | 0." in text and "| attention_topk:variant=B1,layer=2 | " in text

    assert main([*COMMAND, str(tmp_path), "--keep", "0.5"]) == 2
    assert "study.json describes another study" in capsys.readouterr().err


def test_refusals(tmp_path, capsys) -> None:
    assert main(["contribution", "no_such", "-o", str(tmp_path)]) == 2
    assert "no method 'no_such'" in capsys.readouterr().err
    assert analysis(["contribution", str(tmp_path)]) == 2
    assert "no finished video in" in capsys.readouterr().err


def test_another_layout_is_refused(backbone, tmp_path) -> None:
    with pytest.raises(module.StudyError, match=r"frames of \d+ tokens; the test bed's evidence is known for 16"):
        module.run_study(backbone, [], module.Study(videos=1), tmp_path)

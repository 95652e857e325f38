"""The list of methods: complete, and standing when a third party's method is broken."""

import json

import pytest

from cacovid import registry
from cacovid.commands import methods
from cacovid.commands.line import main
from cacovid.registry import method_names


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    """An installed package with a method that cannot be imported and one with a required field."""
    (tmp_path / "thirdparty_method.py").write_text(
        "from dataclasses import dataclass\n"
        "from cacovid.method import Method\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Knob(Method):\n"
        '    """Needs a knob.\n\n    More words.\n    """\n'
        "    knob: int\n"
    )
    info = tmp_path / "thirdparty-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thirdparty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{registry.GROUP}]\nsunk = thirdparty_wreck:Sunk\nknob = thirdparty_method:Knob\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._entries.cache_clear()
    yield
    registry._entries.cache_clear()


def listed(capsys, *words: str) -> str:
    assert main(["methods", *words]) == 0
    return capsys.readouterr().out


def test_every_method_is_listed_with_what_it_does_and_where(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    text = listed(capsys)
    for name in method_names():
        line = next(line for line in text.splitlines() if line.startswith(name))
        assert len(line.split()) > 4, f"{name} has no stage, description or source: {line!r}"
    assert "pre-LLM or in-LLM" in text  # attention_topk acts in either, by its field `variant`


def test_json_holds_fields_with_their_defaults(capsys):
    entries = {e["name"]: e for e in json.loads(listed(capsys, "--json"))}
    assert list(entries) == method_names()
    topk = entries["attention_topk"]
    assert topk["stages"] == ["pre-LLM"] and topk["other_stages"] == [["in-LLM"]]
    assert topk["fields"]["layer"] == {"type": "int", "required": False, "default": 2}
    assert topk["fields"]["retention"]["default"] == 1.0
    assert entries["full"]["stages"] == []
    assert all(e["summary"] and e["source"] and e["error"] is None for e in entries.values())


def test_fields_are_shown_on_request(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    assert "seed" not in listed(capsys).split()
    shown = [" ".join(line.split()) for line in listed(capsys, "--fields").splitlines()]
    assert "seed = 0 (int)" in shown and "variant = A1 (A1 | B1 | B2 | B3 | B4 | B5 | B6)" in shown


def test_a_broken_third_party_is_named_and_harms_nobody(third_party, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    entries = {e["name"]: e for e in json.loads(listed(capsys, "--json"))}
    assert "could not be imported from thirdparty_wreck:Sunk" in entries["sunk"]["error"]
    assert entries["full"]["error"] is None
    assert entries["knob"]["summary"] == "Needs a knob."
    assert entries["knob"]["fields"]["knob"] == {"type": "int", "required": True, "default": None}
    text = listed(capsys, "--fields")
    assert "broken" in text and "No module named 'thirdparty_wreck'" in text and "required  (int)" in text


def test_every_method_with_vectors_has_a_card(capsys):
    from baselines.fidelity.__main__ import METHODS

    assert main(["methods"]) == 0
    assert "docs/methods/" in capsys.readouterr().out
    assert {path.stem for path in methods.CARDS.glob("*.md")} | {"cacovid"} == set(METHODS)

"""The fidelity command: golden vectors hold, and what does not hold is named and counted."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from baselines.fidelity.__main__ import METHODS, main

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", METHODS)
def test_the_golden_vectors_hold(name: str, capsys) -> None:
    assert main([str(GOLDEN), "--methods", name]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(" passed, 0 failed")


def test_a_wrong_vector_fails_by_name(tmp_path: Path, capsys) -> None:
    shutil.copytree(GOLDEN / "cacovid", tmp_path / "cacovid")
    path = tmp_path / "cacovid" / "objective_3.safetensors"
    tensors = load_file(path)
    tensors["frame_loss"] = tensors["frame_loss"] + 1e-6
    path.chmod(0o644)
    path.parent.chmod(0o755)
    path.unlink()
    save_file(tensors, path)
    assert main([str(tmp_path), "--methods", "cacovid"]) == 1
    out = capsys.readouterr().out
    assert "FAIL  objective_3 frame_loss: differs by 1e-06, allowed 1e-09" in out
    assert out.splitlines()[-1] == "503 passed, 1 failed"


def test_missing_vectors_are_a_failure(tmp_path: Path, capsys) -> None:
    assert main([str(tmp_path)]) == 1
    assert "cacovid: vectors in" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([str(tmp_path / "nowhere")])
    assert "no folder" in capsys.readouterr().err


def test_checks_say_what_was_found() -> None:
    from baselines.fidelity.checks import close, same

    assert not close("x", torch.zeros(2), torch.zeros(3), 1.0).passed
    assert same("x", torch.tensor([1, 2]), torch.tensor([1, 3])).found == "1 of 2 differ"

"""A run's name changes with every setting that can change a number, and with nothing else."""

import os
import subprocess
import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from runs.examples import SETTINGS

from cacovid.runs import RunSettings
from cacovid.runs.digest import digest
from cacovid.runs.provenance import git_state
from cacovid.runs.settings import checkpoint_identity
from cacovid.runs.source import source_sha256


@pytest.mark.parametrize("name", [f.name for f in fields(RunSettings)])
def test_every_setting_is_in_the_name(name: str) -> None:
    other: dict[type, Any] = {str: "other", int: 99, dict: {"x": 1}, list: [], type(None): (1, 2)}
    changed = replace(SETTINGS, **{name: other[type(getattr(SETTINGS, name))]})
    assert changed.id != SETTINGS.id
    assert replace(SETTINGS).id == SETTINGS.id and len(SETTINGS.id) == 16


def test_digest_is_the_same_in_every_process(tmp_path: Path) -> None:
    """lmms-eval's configurations hold functions, whose repr holds an address."""
    (tmp_path / "thing.py").write_text("def f(x):\n    return x\n")
    code = (
        f"import sys; sys.path[:0] = {[str(tmp_path), *sys.path]!r}\n"
        "from functools import partial; from thing import f; from cacovid.runs.digest import digest\n"
        "print(digest({'a': f, 'b': partial(f, x=1), 'c': {3, 1, 2}, 'd': object()}))"
    )

    def other(seed: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout

    first = other("1")
    assert first == other("2")
    (tmp_path / "thing.py").write_text("def f(x):\n    return x + 1\n")
    assert other("1") != first, "a changed function is another task"


def test_digest_sees_content() -> None:
    red, blue = (Image.new("RGB", (4, 4), c) for c in ("red", "blue"))
    pairs = [
        (red, blue),
        (b"a", b"b"),
        (np.zeros(3), np.ones(3)),
        (partial(max, 1), partial(max, 2)),
        (np.float32(1), np.float32(2)),
        (Path("a"), Path("b")),
    ]
    for one, two in pairs:
        assert digest({"x": one}) == digest({"x": one}) != digest({"x": two})


def test_source_follows_imports_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "closure_example"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "start.py").write_text("import numpy\nfrom . import used\ndef f():\n    from .deep import x\n")
    (package / "used.py").write_text("x = 1\n")
    (package / "deep.py").write_text("from closure_example.used import x\n")
    (package / "unused.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)

    def now() -> str:
        return source_sha256(["closure_example.start"])

    first = now()
    (package / "unused.py").write_text("x = 2\n")
    assert now() == first, "a file that is not imported changes no number"
    for name in ("used", "deep", "start"):
        before = now()
        with open(package / f"{name}.py", "a") as file:
            file.write("# changed\n")
        assert now() != before, name


def test_our_own_closure_holds_what_makes_the_numbers() -> None:
    alone, with_method = (
        source_sha256(["cacovid.lmms.model"]),
        source_sha256(["cacovid.lmms.model", "baselines.random"]),
    )
    assert alone != with_method != source_sha256(["cacovid.lmms.model", "baselines.uniform"])


def test_checkpoint_is_known_by_content(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text("{}")
    first = checkpoint_identity(str(tmp_path), None)
    (tmp_path / "curve.png").write_bytes(b"no part of the model")
    assert checkpoint_identity(str(tmp_path), None) == first
    (tmp_path / "model.safetensors").write_bytes(b"Weights")
    os.utime(tmp_path / "model.safetensors", ns=(1, 1))  # the clock of file systems may stand still for milliseconds
    assert checkpoint_identity(str(tmp_path), None) != first
    assert checkpoint_identity("owner/name", "c0ffee") == {"hub": "owner/name", "commit": "c0ffee"}


def test_git_state_outside_a_repository(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    identity = ["-c", "user.name=n", "-c", "user.email=e"]
    (tmp_path / "a").write_text("1")
    subprocess.run(["git", "-C", str(tmp_path), "add", "a"], check=True)
    subprocess.run(["git", "-C", str(tmp_path), *identity, "commit", "-qm", "m"], check=True)
    state = git_state(tmp_path)
    assert state is not None and len(state["commit"]) == 40 and state["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path) == {**state, "dirty": True}


def test_a_module_whose_source_cannot_be_seen_is_refused() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"no source file of baselines\.nowhere"):
        source_sha256(["cacovid.method", "baselines.nowhere"])

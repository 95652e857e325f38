"""The code of a submission: copied, so that editing while jobs queue changes nothing."""

import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

from cacovid.runs.digest import digest, file_sha256
from cacovid.runs.provenance import GIT_FILE, git_state
from sweeps.folder import Folder

PACKAGES = ("cacovid", "baselines", "sweeps")
"""Ours. Methods of other packages stay where they are installed."""
_LEFT_OUT = ("__pycache__", "*.pyc")


def snapshot(folder: Folder) -> Path:
    """Copy our packages as they are now to `code/<hash of their content>`, unless they are there already.

    Their commit is noted beside them: the copy is in no repository, or in one that ignores it.
    """
    roots = [_root(name) for name in PACKAGES]
    place = (
        folder.code / digest({f"{r.name}/{p.relative_to(r)}": file_sha256(p) for r in roots for p in _files(r)})[:16]
    )
    if place.exists():
        return place
    part = folder.code / f".{place.name}.{uuid4().hex}"
    try:
        for root in roots:
            shutil.copytree(root, part / root.name, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        (part / GIT_FILE).write_text(json.dumps(git_state(roots[0])))
        os.rename(part, place)
    except OSError:
        shutil.rmtree(part, ignore_errors=True)
        if not place.exists():  # else another process was first
            raise
    return place


def environment(code: Path) -> dict[str, str]:
    """What makes a Python process run `code`: found first, and before what lies in its working directory."""
    path = os.pathsep.join(filter(None, [str(code), os.environ.get("PYTHONPATH", "")]))
    return {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def _root(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ImportError(f"package {package} is not installed, expected it beside cacovid")
    return Path(spec.origin).parent


def _files(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*") if p.is_file() and p.suffix != ".pyc")

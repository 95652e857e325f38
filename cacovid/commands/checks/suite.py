"""The suite itself: its methods, what lmms-eval sees of it, the embedded checkpoint, and where files go."""

import os
import shutil
import tempfile
from importlib.metadata import entry_points
from pathlib import Path

from cacovid.commands.checks.result import Check, reason

MODELS = "lmms_eval.models"
LOW_SPACE = 2**30  # bytes; the test bed's videos and a demo's results fit in less
REINSTALL = "reinstall the package: pip install -e . in its source folder"


def check_suite() -> list[Check]:
    """Methods, lmms-eval models, lmms-eval tasks, embedded checkpoint."""
    return [*_methods(), _models(), _tasks(), _checkpoint()]


def check_storage() -> list[Check]:
    """Folders that are written to. The hub is not contacted."""
    from huggingface_hub import constants

    from cacovid.testbed.videos import CACHE_VARIABLE, cache_folder

    offline = "offline (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else "online"
    return [
        _writable("test-bed videos", cache_folder(), f"set {CACHE_VARIABLE} to a folder with space"),
        _writable(
            f"hub cache, {offline}, not contacted",
            Path(constants.HF_HUB_CACHE),
            "set HF_HOME to a folder with space",
            required=False,
        ),
    ]


def _methods() -> list[Check]:
    from cacovid.errors import MethodError
    from cacovid.registry import GROUP, method_class, method_names

    ours = {entry.name for entry in entry_points(group=GROUP) if entry.dist and entry.dist.name == "cacovid"}
    try:
        names = method_names()
    except MethodError as error:
        return [Check(name="methods", state="problem", detail=reason(error), get="uninstall one of the two")]
    if not names:
        return [Check(name="methods", state="missing", detail="none is registered", get=REINSTALL)]
    broken = []
    for name in names:
        try:
            method_class(name)
        except MethodError as error:
            get = REINSTALL if name in ours else "repair or uninstall the package that brings it"
            broken.append(
                Check(name=f"method {name}", state="problem", detail=reason(error), get=get, required=name in ours)
            )
    good = len(names) - len(broken)
    return [Check(name="methods", state="ok", detail=f"{good} of {len(names)} registered ones import"), *broken]


def _models() -> Check:
    """Our models in lmms-eval's own registry. It drops every plugin's models when one plugin fails to load."""
    from lmms_eval.models import MODEL_REGISTRY_V2

    entry = next((e for e in entry_points(group=MODELS) if e.dist and e.dist.name == "cacovid"), None)
    if entry is None:
        return Check(name="lmms-eval models", state="missing", detail=f"no entry point in {MODELS}", get=REINSTALL)
    try:
        ours = {manifest.model_id for manifest in entry.load()()}
    except Exception as error:
        return Check(name="lmms-eval models", state="problem", detail=reason(error), get=REINSTALL)
    lost = sorted(ours - set(MODEL_REGISTRY_V2.list_canonical_model_ids()))
    if lost or not ours:
        culprits = ", ".join(_unloadable()) or "unknown"
        detail = f"lmms-eval does not list {', '.join(lost) or 'any'}; plugins that fail to load: {culprits}"
        return Check(name="lmms-eval models", state="problem", detail=detail, get="repair or uninstall those plugins")
    return Check(name="lmms-eval models", state="ok", detail=f"{len(ours)} found, such as {min(ours)}")


def _unloadable() -> list[str]:
    out = []
    for entry in entry_points(group=MODELS):
        try:
            entry.load()
        except Exception as error:
            out.append(f"{entry.value} ({reason(error)})")
    return out


def _tasks() -> Check:
    from cacovid.lmms import tasks_dir

    folder = Path(tasks_dir())
    files = list(folder.rglob("*.yaml"))
    if not files:
        return Check(name="lmms-eval tasks", state="missing", detail=f"no yaml file under {folder}", get=REINSTALL)
    return Check(name="lmms-eval tasks", state="ok", detail=f"{len(files)} files under {folder}")


def _checkpoint() -> Check:
    """The embedded checkpoint. Its weights' header is read: a pointer file of git-lfs has none."""
    from safetensors import SafetensorError, safe_open

    from cacovid.backbones import loading

    folder = loading.TESTBEDS["testbed"]
    needed = ("config.json", "model.safetensors", "tokenizer.json")
    if absent := [name for name in needed if not (folder / name).is_file()]:
        detail = f"{folder} lacks {', '.join(absent)}"
        return Check(name="test-bed checkpoint", state="missing", detail=detail, get=REINSTALL)
    weights = folder / "model.safetensors"
    try:
        with safe_open(weights, framework="numpy") as file:
            tensors = len(list(file.keys()))
    except (SafetensorError, OSError) as error:
        return Check(name="test-bed checkpoint", state="problem", detail=reason(error), get=REINSTALL)
    size = weights.stat().st_size / 1e6
    return Check(name="test-bed checkpoint", state="ok", detail=f"{tensors} tensors, {size:.1f} MB")


def _writable(name: str, folder: Path, get: str, *, required: bool = True) -> Check:
    """Write a file into the folder, or into its nearest parent that is there."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"doctor")
            file.flush()
            os.fsync(file.fileno())
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Check(name=name, state="problem", detail=f"{folder}: {reason(error)}", get=get, required=required)
    detail = f"{folder} is writable, {free / 2**30:.1f} GiB free"
    if free < LOW_SPACE:
        return Check(name=name, state="problem", detail=detail, get=get, required=required)
    return Check(name=name, state="ok", detail=detail, required=required)

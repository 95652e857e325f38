"""Where and on what a run ran: recorded, not part of its identity."""

import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import cacovid

GIT_FILE = "git.json"
"""Beside a copied package: the `git_state` of the original."""


def provenance() -> dict[str, Any]:
    """Commit, versions, hardware, threads and torch seed of this process."""
    return {
        "git": git_state(Path(cacovid.__file__).parent),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in ("accelerate", "numpy", "tokenizers", "datasets")},
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "torch_seed": torch.initial_seed(),
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and dirty flag of the repository that holds `folder`; None outside one, or without git.

    Of a copy of the code: those of the original, as noted beside it.
    """
    note = folder.parent / GIT_FILE
    if note.is_file():
        return json.loads(note.read_text())

    def git(*words: str) -> str:
        out = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=30)
        return out.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        return None


def hardware() -> dict[str, Any]:
    """Processor, memory, and accelerators with their memory and driver."""
    out: dict[str, Any] = {
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }
    if torch.cuda.is_available():
        properties = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        out["accelerators"] = [{"name": p.name, "memory_bytes": p.total_memory} for p in properties]
        out["cuda"] = torch.version.cuda
        out["cudnn"] = torch.backends.cudnn.version()
    return out


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")

"""On what a block was timed: machine, versions, clocks, kernels; recorded beside its rows."""

import os
import subprocess
from pathlib import Path
from typing import Any

import torch

from cacovid.backbones import Backbone
from cacovid.runs.provenance import provenance
from cacovid.runs.settings import package_versions

_GPU = (
    "clocks.sm",
    "clocks.mem",
    "clocks.max.sm",
    "clocks.max.mem",
    "power.draw",
    "power.limit",
    "temperature.gpu",
    "utilization.gpu",
    "persistence_mode",
    "driver_version",
)
"""What `nvidia-smi` is asked for: MHz, W, degrees Celsius, per cent."""


def device_name(device: torch.device) -> str:
    """The accelerator's, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return provenance()["hardware"]["cpu"] or "cpu"


def environment(backbone: Backbone) -> dict[str, Any]:
    """What does not change during a block."""
    return {
        **provenance(),
        "versions": package_versions(),
        "family": backbone.family,
        "device": str(backbone.device),
        "device_name": device_name(backbone.device),
        "dtype": str(backbone.model.dtype).removeprefix("torch."),
        "attention": backbone.decoder.config._attn_implementation,
        "sdpa_kernels": {
            "flash": torch.backends.cuda.flash_sdp_enabled(),
            "memory_efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
            "cudnn": torch.backends.cuda.cudnn_sdp_enabled(),
            "math": torch.backends.cuda.math_sdp_enabled(),
        },
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "weights_bytes": sum(p.numel() * p.element_size() for p in backbone.model.parameters()),
    }


def clocks(device: torch.device) -> dict[str, Any]:
    """What may drift: the processors' load, and the accelerator's clocks, power and temperature where they are told."""
    return {"load_average": os.getloadavg(), "cpu_mhz": _cpu_mhz(), "gpu": _gpu() if device.type == "cuda" else None}


def _cpu_mhz() -> float | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    found = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    return sum(found) / len(found) if found else None


def _gpu() -> list[dict[str, str]] | None:
    """One a device of the machine; None without nvidia-smi."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_GPU)}", "--format=csv,noheader,nounits"]
    try:
        out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return [dict(zip(_GPU, map(str.strip, line.split(",")), strict=False)) for line in out.splitlines()]

"""One comparison with a golden vector."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Check:
    """What was compared, whether it holds, and what was found."""

    name: str
    passed: bool
    found: str


def close(name: str, ours: Tensor, expected: Tensor, tolerance: float) -> Check:
    """Largest absolute difference within `tolerance`."""
    if ours.shape != expected.shape:
        return Check(name, False, f"shape {tuple(ours.shape)}, expected {tuple(expected.shape)}")
    worst = (ours - expected).abs().max().item() if ours.numel() else 0.0
    return Check(name, worst <= tolerance, f"differs by {worst:.2g}, allowed {tolerance:g}")


def same(name: str, ours: Tensor, expected: Tensor) -> Check:
    """Equal, element by element."""
    if ours.shape != expected.shape:
        return Check(name, False, f"shape {tuple(ours.shape)}, expected {tuple(expected.shape)}")
    wrong = int((ours != expected).sum())
    return Check(name, torch.equal(ours, expected), f"{wrong} of {ours.numel()} differ")

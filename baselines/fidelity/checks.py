"""One comparison with a golden vector."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Check:
    """What was compared, whether it holds, and what was found."""

    name: str
    passed: bool
    found: str
    difference: float | None = None  # largest absolute difference of numbers
    agreement: float | None = None  # share of equal indices, masks, labels

    def of(self, case: str) -> "Check":
        """The same with the case's name before its own."""
        return replace(self, name=f"{case} {self.name}")


def cases(folder: Path) -> Iterator[tuple[str, dict[str, Any], dict[str, Tensor]]]:
    """Every case of a method's folder: its name, what its JSON says, and its tensors."""
    for path in sorted(folder.glob("case_*.json")):
        yield path.stem, json.loads(path.read_text(encoding="utf-8")), load_file(path.with_suffix(".safetensors"))


def close(name: str, ours: Tensor, expected: Tensor, tolerance: float) -> Check:
    """Largest absolute difference within `tolerance`."""
    if ours.shape != expected.shape:
        return Check(name, False, f"shape {tuple(ours.shape)}, expected {tuple(expected.shape)}")
    worst = (ours - expected).abs().max().item() if ours.numel() else 0.0
    return Check(name, worst <= tolerance, f"differs by {worst:.2g}, allowed {tolerance:g}", difference=worst)


def same(name: str, ours: Tensor, expected: Tensor) -> Check:
    """Equal, element by element."""
    if ours.shape != expected.shape:
        return Check(name, False, f"shape {tuple(ours.shape)}, expected {tuple(expected.shape)}")
    wrong, total = int((ours != expected).sum()), max(ours.numel(), 1)
    return Check(name, wrong == 0, f"{wrong} of {ours.numel()} differ", agreement=1 - wrong / total)

"""DivPrune against the release: pick order, kept rows, counts, and what it does with copies of a row."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from baselines.divprune import DivPrune, farthest_first
from baselines.fidelity.checks import Check, cases, same
from cacovid.errors import BudgetError
from cacovid.records import VideoTokens


def check(folder: Path) -> list[Check]:
    """All vectors of the folder `divprune`; the release's own behaviour is `duplicates="released"`."""
    checks: list[Check] = []
    for stem, case, tensors in cases(folder):
        parameters = case["params"]
        if "keep_ratios" in parameters:
            checks += _ratios(stem, parameters, tensors)
        elif "k_examples" in parameters:
            checks += _by_hand(stem, parameters, tensors)
        else:
            checks += _copies(stem, parameters, tensors)
    return checks


def _video(rows: Tensor) -> VideoTokens:
    """The rows (N, D) as a video of one frame."""
    edge = rows[:1]
    return VideoTokens(rows[None], (1, len(rows)), edge, edge, edge, slice(0, 1), "golden")


def _picks(rows: Tensor, count: int, first: Tensor | None = None) -> Tensor:
    return farthest_first(rows, count, duplicates="released", first=first)


def _selection(name: str, rows: Tensor, retention: float, picks: Tensor, kept: Tensor) -> list[Check]:
    """Pick order by the core function, and kept rows by the method, with either treatment of duplicates."""
    checks = [same(f"{name} picks", _picks(rows, len(picks)), picks)]
    for method in (DivPrune(retention=retention), DivPrune(retention=retention, duplicates="released")):
        out = method.compress(_video(rows), method.budget(len(rows)))
        checks += [
            same(f"{name} kept, {method.duplicates}", out.position, kept),
            same(f"{name} rows, {method.duplicates}", out.tokens, rows[kept]),
        ]
    return checks


def _count(name: str, retention: float, total: int, expected: int) -> Check:
    """Tokens to keep; where the release keeps none, ours refuses."""
    try:
        ours = DivPrune(retention=retention).budget(total)
    except BudgetError as refusal:
        return Check(name, expected == 0, f"refused: {refusal}")
    return Check(name, ours == expected, f"{ours} tokens, expected {expected}")


def _ratios(stem: str, parameters: dict[str, Any], tensors: dict[str, Tensor]) -> list[Check]:
    checks = []
    for ratio in parameters["keep_ratios"]:
        name = f"{stem} r={ratio}"
        checks += _selection(name, tensors["x"], ratio, tensors[f"picks.r{ratio}"], tensors[f"kept.r{ratio}"])
        checks.append(_count(f"{name} count", ratio, parameters["N"], parameters["keep_counts"][str(ratio)]))
    return checks


def _by_hand(stem: str, parameters: dict[str, Any], tensors: dict[str, Tensor]) -> list[Check]:
    ratio, kept = parameters["keep_ratio"], tensors["angles.kept"]
    checks = _selection(f"{stem} angles", tensors["angles.x"], ratio, tensors["angles.picks"], kept)
    checks += _selection(f"{stem} scaled", tensors["angles_scaled.x"], ratio, tensors["angles_scaled.picks"], kept)
    for example, expected in parameters["k_examples"].items():
        total, ratio = (part.partition("=")[2] for part in example.split(","))
        checks.append(_count(f"{stem} count {example}", float(ratio), int(total), expected))
    return checks


def _copies(stem: str, parameters: dict[str, Any], tensors: dict[str, Tensor]) -> list[Check]:
    """Copies tie up to rounding: the stored first pick is given, and contents are compared where copies may differ."""
    small = _picks(tensors["small.x"], parameters["small_k"])
    checks = [same(f"{stem} small", small, tensors["small.picks"])]
    rows, contents = tensors["static.x"], parameters["tokens_per_frame"]
    for key, counts in parameters["static_keep"].items():
        stored, count = tensors[f"static.picks.k{key}"], counts["k"]
        ours, fresh = _picks(rows, count, stored[:1]), min(count, contents)
        masked = farthest_first(rows, count, first=stored[:1])
        name = f"{stem} static k={key}"
        checks += [
            same(f"{name} contents", ours[:fresh] % contents, stored[:fresh] % contents),
            same(f"{name} contents, masked", masked[:fresh] % contents, stored[:fresh] % contents),
            _distinct(f"{name} distinct", ours, counts["unique"]),
            _distinct(f"{name} distinct contents", ours % contents, counts["unique_content"]),
            _distinct(f"{name} distinct, masked", masked, count),
        ]
    return checks


def _distinct(name: str, picks: Tensor, expected: int) -> Check:
    found = len(torch.unique(picks))
    return Check(name, found == expected, f"{found} distinct, expected {expected}")

"""FrameFusion against the release: runs of several calls, each on the state that ours left behind."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from baselines._framefusion_calls import Progress, chain_similarity, merging_call, need, pruning_call
from baselines.fidelity.checks import Check, cases, close, same
from cacovid.errors import BudgetError

ROWS = 1e-5
"""Largest absolute difference of hidden rows; counts, shares, flags and positions are exact."""


def check(folder: Path) -> list[Check]:
    """All vectors of the folder `framefusion`."""
    return [check for stem, case, tensors in cases(folder) for check in _run(stem, case["params"], tensors)]


def _run(stem: str, params: dict[str, Any], tensors: dict[str, Tensor]) -> list[Check]:
    """One run. The state handed to call j + 1 is ours after call j plus the stored toy layer `residual`.

    What goes into a call is checked like what comes out, so an early difference shows where it starts.
    """
    layers = params["num_layers"]
    thresholds = {"similarity": params["similarity_lower_bound"], "merge_ratio": params["ratio_lower_bound"]}
    hidden, positions = tensors["hidden0"], torch.arange(params["sequence"])
    progress, checks = Progress(), list[Check]()
    for call in params["calls"]:
        name = f"call{call['call']}"
        label = f"{stem} {name}"
        patch = tensors["patch_type"][positions]
        video = (patch >= 0).nonzero().squeeze(1)
        checks.append(same(f"{label} positions_in", positions, tensors[f"{name}.positions_in"]))
        checks.append(close(f"{label} hidden_in", hidden, tensors[f"{name}.hidden_in"], ROWS))
        found: dict[str, Any] = {}
        if call["action"] != "idle":
            found["video_tokens"] = len(video)
            try:
                found["need"] = need(progress.fractions, params["cost"], layers)
            except BudgetError:
                found["need"] = "ValueError"
        if call["action"] == "merge":
            alike = chain_similarity(hidden[video], patch[video]) >= thresholds["similarity"]
            found |= {"candidates": int(alike.sum()), "ratio": int(alike.sum()) / len(video)}
        cut, rows = torch.arange(len(video)), hidden[video]
        if "error" in call:
            refused = False
            try:
                merging_call(rows, patch[video], progress, params["cost"], layers=layers, **thresholds)
            except BudgetError:
                refused = True
            checks.append(Check(f"{label} error", refused, "refused" if refused else "went on"))
            return checks + _values(label, call, found)
        if call["action"] == "merge":
            cut_, progress = merging_call(rows, patch[video], progress, params["cost"], layers=layers, **thresholds)
            assert cut_.hidden is not None
            cut, rows = cut_.keep, cut_.hidden
        elif call["action"] == "prune":
            attention = tensors[f"{name}.last_query_attention"][:, video]
            cut = pruning_call(attention, len(video) * (1 - found["need"]))
            rows = rows[cut]
            found["keep"] = len(cut)
            progress = Progress(progress.fractions, merged=True, pruned=True)
        hidden, positions = _put_back(hidden, positions, video, cut, rows)
        found |= {
            "tokens": len(positions),
            "merge_fractions": list(progress.fractions),
            "finish_merging": progress.merged,
            "finish_pruning": progress.pruned,
        }
        checks += _values(label, call, found)
        checks.append(same(f"{label} positions", positions, tensors[f"{name}.positions"]))
        checks.append(close(f"{label} hidden", hidden, tensors[f"{name}.hidden"], ROWS))
        hidden = hidden + tensors[f"{name}.residual"][positions]
    return checks


def _put_back(hidden: Tensor, positions: Tensor, video: Tensor, keep: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The whole sequence after a call on its video rows, which lie side by side."""
    first, end = int(video[0]), int(video[-1]) + 1
    hidden = torch.cat([hidden[:first], rows, hidden[end:]])
    return hidden, torch.cat([positions[:first], positions[video][keep], positions[end:]])


def _values(label: str, call: dict[str, Any], found: dict[str, Any]) -> list[Check]:
    """Every number and flag stored for a call; shares of tokens and `need` are float64 of both sides."""
    stored = {key: value for key, value in call.items() if key not in ("call", "action", "error")}
    checks = []
    for key, value in stored.items():
        ours = found.get(key, "nothing")
        equal = ours == value if key != "need" or isinstance(value, str) else abs(ours - value) <= 1e-12
        checks.append(Check(f"{label} {key}", equal, f"{ours}, expected {value}"))
    return checks

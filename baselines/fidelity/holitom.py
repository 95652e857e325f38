"""HoliTom's outer stage against the release: pooling, similarities, windows, clusters and merged rows."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers import LlavaOnevisionModel

from baselines._holitom_plan import (
    Plan,
    choose_windows,
    make_plan,
    released_share,
    static_runs,
    transition_similarity,
)
from baselines.fidelity.checks import Check, cases, close, same
from baselines.holitom import merge_video
from cacovid.records import Compressed

ROWS, SHARE = 1e-5, 1e-12
"""Largest absolute differences."""


def check(folder: Path) -> list[Check]:
    """All vectors of the folder `holitom`; an output that nothing was compared with is a failure."""
    checks: list[Check] = []
    for stem, case, stored in cases(folder):
        run = _windows_alone if "runs" in case["params"] else _outer_stage
        ours, found = run(case["params"], stored)
        checks += [c.of(stem) for c in found]
        for name, entry in case["tensors"].items():
            if entry["role"] != "output":
                continue
            label = f"{stem} {name}"
            if name not in ours:
                checks.append(Check(label, False, "nothing was compared with it"))
            elif stored[name].is_floating_point():
                checks.append(close(label, ours[name], stored[name], ROWS))
            else:
                checks.append(same(label, ours[name], stored[name]))
    return checks


def _pool(x: Tensor) -> Tensor:
    """The backbone's own pooling of (F, P, D), without a model around it."""
    vision = SimpleNamespace(image_size=int(x.shape[1] ** 0.5), patch_size=1)
    core: Any = SimpleNamespace(config=SimpleNamespace(vision_config=vision))
    return LlavaOnevisionModel.apply_pooling(core, x)


def _outer_stage(params: Any, stored: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[Check]]:
    """Cases 0 to 2: every setting through the functions that `HoliTom(counts="released")` runs."""
    ours, checks = {}, []
    features, scores = stored["features"], stored["score"]
    if "pooled_features" in stored:
        features, scores = _pool(features), _pool(scores[..., None])[..., 0]
        ours["pooled_features"], ours["pooled_score"] = features, scores
    similarity = ours["similarity"] = transition_similarity(features)
    for name, setting in params["settings"].items():
        plan = make_plan(
            similarity, setting["retain_ratio"], None, tau=setting["tau"], max_window=setting["max_window"]
        )
        out = merge_video(features, scores, plan, neighbours=params["knn"], beta=setting["beta"])
        ours |= {f"{name}.{key}": value for key, value in _described(plan, out, stored["newline"]).items()}
        share = released_share(setting["retain_ratio"], features.shape[0] * features.shape[1], plan.reduced)
        checks += [
            close(f"{name} effective_ratio", torch.tensor(share), torch.tensor(setting["effective_ratio"]), SHARE),
            same(f"{name} counts", torch.tensor(_counts(plan)), torch.tensor(_stored_counts(setting))),
        ]
    return ours, checks


def _described(plan: Plan, out: Compressed, newline: Tensor) -> dict[str, Tensor]:
    """What the vectors say of every row, read from the plan and from what `compress` returns."""
    slots = plan.static.shape[1]
    frame, slot = out.position // slots, out.position % slots
    owner = out.owner.view(-1, slots)
    clusters = torch.full(plan.static.shape, -1)
    for row, still, first in zip(clusters, plan.static, plan.windows[:, 0].tolist(), strict=True):
        row[still] = owner[first][still].unique(return_inverse=True)[1]
        row[owner[first] < 0] = -1
    return {
        "windows": plan.windows,
        "rows": torch.cat([out.tokens, newline[None]]),
        "row_is_static": plan.static[plan.window[frame], slot],
        "row_frame": frame,
        "row_slot": slot,
        "static_cluster": clusters,
    }


def _counts(plan: Plan) -> list[int]:
    """Tokens saved over time, rows in all, and for each window its slots and rows of both kinds."""
    counts = [plan.reduced, len(plan)]
    for (first, last), still, merged in zip(plan.windows.tolist(), plan.static, plan.merged, strict=True):
        single = set(plan.single[first : last + 1])
        assert len(single) == 1, "frames of one window keep equally many"
        counts += [int(still.sum()), merged, int((~still).sum()), single.pop()]
    return counts


def _stored_counts(setting: Any) -> list[int]:
    counts = [int(setting["reduced"]), setting["tokens"]]
    for window in setting["windows"]:
        counts += [window[k] for k in ("static_slots", "static_rows", "dynamic_slots", "dynamic_rows_per_frame")]
    return counts


def _windows_alone(params: Any, stored: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[Check]]:
    """Case 3: the dynamic program, its ties and the strict threshold."""
    ours, checks = {}, []
    for run in [*params["runs"], {"name": "strict", **params["strict"], "max_window": 1024}]:
        runs = static_runs(stored[f"{run['name']}.similarity"], params["tau"])
        windows, reduced = choose_windows(runs, run["max_window"])
        strict = run["name"] == "strict"
        label = run["name"] if strict else f"{run['name']}.W{run['max_window']}"
        ours[f"{label}.windows"] = windows
        checks.append(same(f"{label} reduced", torch.tensor(reduced), torch.tensor(int(run["reduced"]))))
    return ours, checks

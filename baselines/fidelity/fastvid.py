"""FastVID against its release for LLaVA-OneVision: segments, counts, density scores, kept slots, rows, positions."""

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from baselines._fastvid_plan import make_plan, segment_lengths, transitions
from baselines.fastvid import FastVID, leftovers, merge_video, peak_scores, salient_mask
from baselines.fidelity.checks import Check, cases, close, same
from cacovid.backbones import Backbone
from cacovid.records import Compressed, VideoTokens

ROWS = 1e-5
"""Largest absolute difference of rows, transitions and density scores; indices are exact."""


def check(folder: Path) -> list[Check]:
    """All vectors of the folder `fastvid`."""
    checks: list[Check] = []
    for stem, case, tensors in cases(folder):
        params = case["params"]
        checks += _scores(stem, tensors)
        for setting, values in params["settings"].items():
            checks += _setting(stem, setting, values, tensors)
    return checks


def _scores(case: str, tensors: dict[str, Tensor]) -> list[Check]:
    """What does not hang on a setting: cosines of neighbouring frames, density scores for each number of salient."""
    ours = transitions(tensors["frame_descriptor"])
    checks = [close(f"{case} transition", ours, tensors["transition"], ROWS)]
    for name in sorted(name for name in tensors if name.startswith("density.A")):
        salient = int(name.removeprefix("density.A"))
        slots = leftovers(salient_mask(tensors["saliency"], salient), salient)  # (F, U)
        scores = peak_scores(torch.stack([x[kept] for x, kept in zip(tensors["x"], slots, strict=True)]))
        checks.append(close(f"{case} {name}", scores, tensors[name], ROWS))
    return checks


def _setting(case: str, setting: str, values: dict[str, Any], tensors: dict[str, Tensor]) -> list[Check]:
    """One setting, counted as the release counts; the cosines are the stored ones, so that one check is one step."""
    x, saliency = tensors["x"], tensors["saliency"]
    method = FastVID(
        retention=values["retention_ratio"],
        rounding="floor",
        min_segments=values["DySeg_c"],
        tau=values["DySeg_tau"],
        context_share=values["STPrune_d"],
        anchor_every=values["DTM_p"],
        beta=values["DTM_beta"],
    )
    lengths = segment_lengths(tensors["transition"], method.min_segments, method.tau)
    plan = make_plan(
        lengths,
        x.shape[1],
        method.kept_a_frame(x.shape[1]),
        total=None,
        context_share=method.context_share,
        every=method.anchor_every,
    )
    out = merge_video(x, saliency, plan, method.beta)
    ours = {
        "segments": torch.tensor(lengths),
        "context_per_frame": torch.tensor(plan.context),
        "kept": out.position,
        "kept_is_salient": salient_mask(saliency, plan.salient).flatten()[out.position],
        "position_ids": _positions(method, out, tensors),
    }
    checks = [same(f"{case} {setting} {name}", value, tensors[f"{setting}.{name}"]) for name, value in ours.items()]
    return [*checks, close(f"{case} {setting} rows", out.tokens, tensors[f"{setting}.rows"], ROWS)]


def _positions(method: FastVID, out: Compressed, tensors: dict[str, Tensor]) -> Tensor:
    """Position ids of the sequence that every backbone makes of it; the first row of `suffix` is the newline."""
    x, suffix = tensors["x"], tensors["suffix"]
    video = VideoTokens(x, (1, x.shape[1]), tensors["prefix"], suffix[:1], suffix[1:], slice(0), "golden")
    any_backbone = cast(Backbone, None)  # the sequence is made of these arguments alone
    return Backbone.sequence(any_backbone, video, out, len(out), method).positions

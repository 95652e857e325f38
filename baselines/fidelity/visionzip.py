"""VisionZip against its LLaVA-OneVision port in HoliTom: scores, pooling, dominant and target tokens, merged rows."""

from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from baselines.fidelity.checks import Check, cases, close, same
from baselines.visionzip import (
    DOMINANT_SHARE,
    contextual_targets,
    dominant_count,
    dominant_mask,
    nearest_target,
    zip_frames,
)
from cacovid.attention import received

SCORES, POOLED = 1e-6, 1e-5
ROWS_AFTER_POOLING, ROWS = 1e-4, 1e-5
"""Largest absolute differences; indices are exact."""


def check(folder: Path) -> list[Check]:
    """All vectors of the folder `visionzip`."""
    checks: list[Check] = []
    for stem, case, tensors in cases(folder):
        checks += _case(stem, case["params"], tensors)
    return checks


def _case(stem: str, params: dict[str, Any], tensors: dict[str, Tensor]) -> list[Check]:
    checks: list[Check] = []
    tolerance = ROWS
    features, scores, metric = tensors["features"], tensors.get("score"), tensors.get("metric")
    if "q" in tensors:  # from queries and keys on: what follows is built on our own scores
        checks, (features, scores, metric) = _pooling(stem, params, tensors)
        tolerance = ROWS_AFTER_POOLING
    assert scores is not None and metric is not None
    for setting, values in params["settings"].items():
        shares = params["dominant_ratio"]
        share = shares[setting] if isinstance(shares, dict) else DOMINANT_SHARE  # cases 0 and 1 name 54/64
        name, kept = f"{stem} {setting}", values["tokens_per_frame"]
        expected = {k.removeprefix(f"{setting}."): v for k, v in tensors.items() if k.startswith(f"{setting}.")}
        checks += _setting(name, kept, share, features, scores, metric, expected, tensors["newline"], tolerance)
    return checks


def _pooled(x: Tensor) -> Tensor:
    """(F, n, C) of a square grid to half its side, rounded up, as transformers pools LLaVA-OneVision's features.

    The backbone pools with the stock model's own `apply_pooling`, so no method needs this.
    """
    side = round(x.shape[1] ** 0.5)
    image = x.transpose(1, 2).unflatten(2, (side, side))  # (F, C, side, side)
    return interpolate(image, size=(ceil(side / 2),) * 2, mode="bilinear").flatten(2).transpose(1, 2)


def _pooling(case: str, params: dict, tensors: dict[str, Tensor]) -> tuple[list[Check], tuple[Tensor, Tensor, Tensor]]:
    """Scores and metric from queries and keys, and all three pooled; returns pooled features, scores and metric too."""
    score = received(tensors["q"], tensors["k"], params["head_dim"] ** -0.5)
    keys = tensors["k"].transpose(1, 2)  # (F, n, heads, head_dim)
    pooled_keys = _pooled(keys.flatten(2)).unflatten(2, keys.shape[2:])  # as `VideoTokens.keys`: each head apart
    pooled = (_pooled(tensors["features"]), _pooled(score[..., None])[..., 0], pooled_keys.mean(2))
    ours = {
        "score": (score, SCORES),
        "metric": (keys.mean(2), SCORES),
        "pooled_features": (pooled[0], POOLED),
        "pooled_score": (pooled[1], POOLED),
        "pooled_metric": (pooled[2], POOLED),
    }
    return [close(f"{case} {name}", value, tensors[name], limit) for name, (value, limit) in ours.items()], pooled


def _setting(
    name: str,
    kept: int,
    share: float,
    features: Tensor,
    scores: Tensor,
    metric: Tensor,
    expected: dict[str, Tensor],
    newline: Tensor,
    tolerance: float,
) -> list[Check]:
    """One number of tokens a frame and one split, step by step, and the rows that come out."""
    frames, slots = scores.shape
    dominants = dominant_count(kept, share)
    dominant = dominant_mask(scores, [dominants] * frames)
    targets = contextual_targets(dominant, [kept - dominants] * frames)
    leftover = ~dominant.scatter(1, targets, True)
    slot = torch.arange(slots).expand(frames, -1)
    indices = {
        "dominant": slot[dominant].view(frames, -1),
        "targets": targets,
        "leftover": slot[leftover].view(frames, -1),
        "assignment": nearest_target(metric, targets)[leftover].view(frames, -1),
    }
    tokens = zip_frames(features, scores, metric, [kept] * frames, share).tokens
    rows = {"rows": tokens.view(frames, kept, -1)}
    if "sequence" in expected:  # the newline is the backbone's, whatever the method
        rows["sequence"] = torch.cat([tokens, newline[None]])
    checks = [same(f"{name} {part}", ours, expected[part]) for part, ours in indices.items()]
    return checks + [close(f"{name} {part}", ours, expected[part], tolerance) for part, ours in rows.items()]

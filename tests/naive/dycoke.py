"""DyCoke as the official loops run: pairs of frames, then every fourth pair again, token by token; DP head by head."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from baselines._dycoke_merging import changed as fast_changed
from baselines._dycoke_merging import fill, kept_at
from baselines._dycoke_merging import references as fast_references
from baselines.dycoke import attention_row
from baselines.dycoke import look as fast_look


def references(frames: int) -> list[int]:
    """The released loops: what the pair pass and the second pass do to each frame."""
    out = [-1] * frames
    for i in range(0, frames - 1, 2):
        out[i], out[i + 1] = i, i
    for i in range(0, frames - 4, 4):
        out[i + 2] = i
    return out if frames > 1 else [0]


def cosine(a: Tensor, b: Tensor) -> float:
    length = float((a * a).sum() ** 0.5) * float((b * b).sum() ** 0.5)
    return float((a * b).sum()) / length if length else 0.0


def changed(features: Tensor, refs: list[int], quota: list[int], order: str = "raster") -> Tensor:
    """As `baselines._dycoke_merging.changed`."""
    size = features.shape[1]
    kept: list[int] = []
    for f, (ref, count) in enumerate(zip(refs, quota, strict=True)):
        places = list(range(size))
        if ref not in (f, -1):
            a, b = features[f].float(), features[ref].float()
            similar = [cosine(a[s], b[s]) for s in range(size)]
            places.sort(key=lambda s: similar[s])  # stable: the earlier of equals first
        places = places[:count]
        kept += [f * size + s for s in (sorted(places) if order == "raster" else places)]
    return torch.tensor(kept, dtype=torch.int64)


def look(row: Tensor, count: int, memo: dict[str, Any], gate: str, threshold: float) -> Tensor | None:
    """As `baselines.dycoke.look`."""
    similar, before = 0.0, memo.get("row")
    if before is not None:
        similar = cosine(row, before)
    memo["row"] = row
    if similar < threshold:
        best = sorted(range(len(row)), key=lambda s: -float(row[s]))[:count]
        memo["visible"] = torch.tensor([*sorted(best), len(row)], dtype=torch.int64)
    elif gate == "code":
        memo["visible"] = None
    return memo["visible"]


def film(frames: int, size: int, width: int) -> tuple[Tensor]:
    """Features that drift from frame to frame, each place at its own speed, so that similarities spread."""
    generator = torch.Generator().manual_seed(0)
    speed = torch.rand(size, 1, generator=generator) + 0.1
    steps = torch.randn(frames, size, width, generator=generator) * speed
    return (steps.cumsum(0) / torch.arange(1, frames + 1)[:, None, None].sqrt(),)


def attention(frames: int, size: int, width: int) -> tuple[Tensor]:
    """One decode step's attention of 28 heads to the video tokens that K = 0.7 leaves."""
    generator = torch.Generator().manual_seed(0)
    kept = sum(_quota(frames, size))
    return (torch.randn(28, kept, generator=generator).softmax(-1),)


def _quota(frames: int, size: int) -> list[int]:
    return fill(fast_references(frames), size, [kept_at(0.7, size)] * frames)


def _merge(select: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: select(x, fast_references(len(x)), _quota(len(x), x.shape[1]))


def _mean(heads: Tensor) -> Tensor:
    """Mean over heads, head by head, without the last video token."""
    total = torch.zeros(heads.shape[1] - 1)
    for head in heads:
        total = total + head[:-1]
    return total / len(heads)


def _step(row: Callable[..., Any], choose: Callable[..., Any]) -> Callable[..., Any]:
    return lambda heads: choose(row(heads), kept_at(0.8, heads.shape[1] - 1), {}, "code", 0.9)


CASES: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    "merging": (film, _merge(fast_changed), _merge(changed)),
    "decode step": (attention, _step(attention_row, fast_look), _step(_mean, look)),
}

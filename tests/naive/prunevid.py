"""PruneVid step by step: one point, one pair of frames, one block at a time, as the formulas are written."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from baselines import _prunevid_plan as plans
from baselines import _prunevid_split as split
from baselines import prunevid as fast
from baselines._prunevid_plan import Plan


def cluster(x: Tensor, clusters: int, neighbours: int) -> tuple[list[int], list[int]]:
    """DPC-KNN of (N, D) points: centres by falling score, and the cluster of every point."""
    points, width = x.shape
    dist = torch.stack([(x.float() - x[i].float()).square().sum(1).sqrt() / math.sqrt(width) for i in range(points)])
    nearest = dist.sort(dim=1).values[:, : min(neighbours, points)]
    rho = [math.exp(-float(row.square().mean())) for row in nearest]
    scores = []
    for i in range(points):
        denser = [j for j in range(points) if rho[j] > rho[i] or (rho[j] == rho[i] and j < i)]
        delta = min(float(dist[i, j]) for j in denser) if denser else float(dist.max())
        scores.append(rho[i] * delta)
    centres = sorted(range(points), key=lambda i: -scores[i])[:clusters]  # sorted is stable
    labels = [int(dist[i, centres].argmin()) for i in range(points)]
    for rank, centre in enumerate(centres):
        labels[centre] = rank
    return centres, labels


def refine(labels: list[int]) -> list[int]:
    """Longest runs of each label stay; the gaps go to the longer neighbour, from left to right."""
    frames, keep = len(labels), [False] * len(labels)
    for label in set(labels):
        lengths, start = [], 0
        while start < frames:
            stop = start
            while stop < frames and labels[stop] == labels[start]:
                stop += 1
            if labels[start] == label:
                lengths.append((start, stop))
            start = stop
        most = max(stop - start for start, stop in lengths)
        for start, stop in lengths:
            if stop - start == most > 1:
                keep[start:stop] = [True] * (stop - start)
    out: list[int | None] = [label if stays else None for label, stays in zip(labels, keep, strict=True)]
    while None in out:
        start = out.index(None)
        stop = start
        while stop < frames and out[stop] is None:
            stop += 1
        left, right = 0, 0
        while start - left > 0 and out[start - left - 1] == out[start - 1]:
            left += 1
        while stop + right < frames and out[stop + right] == out[stop]:
            right += 1
        taken = 0 if not left and not right else out[start - 1] if left >= right else out[stop]
        out[start:stop] = [taken] * (stop - start)
    return [label or 0 for label in out]


def similarity(features: Tensor, lengths: list[int]) -> Tensor:
    """Mean cosine over all pairs of different frames of a segment, one pair at a time."""
    out, start = [], 0
    for frames in lengths:
        total = torch.zeros(features.shape[1])
        for a in range(start, start + frames):
            for b in range(start, start + frames):
                if a != b:
                    total += torch.cosine_similarity(features[a].float(), features[b].float(), dim=-1)
        out.append(total / (frames * (frames - 1)) if frames > 1 else torch.full_like(total, -1))
        start += frames
    return torch.stack(out)


def merge(features: Tensor, plan: Plan) -> Tensor:
    """Merged rows: per segment the static block, then each frame's dynamic block."""
    rows: list[Tensor] = []
    start = 0
    for frames, static in zip(plan.lengths, plan.static, strict=True):
        clip = features[start : start + frames].float()
        rows += _block([clip[:, s].mean(0) for s in range(len(static)) if static[s]], plan.beta)
        for frame in clip:
            rows += _block([frame[s] for s in range(len(static)) if not static[s]], plan.beta)
        start += frames
    return torch.stack(rows).to(features.dtype)


def _block(tokens: list[Tensor], beta: float) -> list[Tensor]:
    if len(tokens) <= 14:
        return tokens
    x = torch.stack(tokens)
    count = max(int(len(x) * beta), 1)
    _, labels = cluster(x, count, 7)
    members = [[i for i, label in enumerate(labels) if label == c] for c in range(count)]
    return [x[own].mean(0) for own in members]


def stage_one(features: Tensor) -> Tensor:
    """All of stage 1 at the released numbers."""
    _, labels = cluster(features.float().mean(1), max(int(len(features) * 0.25), 1), 7)
    lengths = split.run_lengths(refine(labels))
    return merge(features, Plan(lengths, similarity(features, lengths) > 0.8, 0.5))


def select(scores: Tensor, block: Tensor, quota: list[int]) -> Tensor:
    """The best `quota[b]` rows of each block, ascending."""
    keep: list[int] = []
    for b, count in enumerate(quota):
        own = [i for i in range(len(block)) if int(block[i]) == b]
        keep += sorted(own, key=lambda i: -float(scores[i]))[:count]
    return torch.tensor(sorted(keep))


def _fast_stage_one(features: Tensor) -> Tensor:
    lengths = split.run_lengths(split.refine(split.frame_labels(features, 0.25, 7).tolist()))
    static = split.similarity(features, lengths).cpu() > 0.8
    return fast.merge(features, Plan(lengths, static, 0.5)).tokens


def scenes(frames: int, size: int, width: int, seed: int = 0) -> tuple[Tensor]:
    """(F, S, D): scenes of four frames or more, half of the positions nearly still.

    Few latent dimensions, so that distances differ by more than float32 rounds: a tie would prove nothing.
    """
    g = torch.Generator().manual_seed(seed)
    scene = torch.arange(frames) * max(frames // 8, 1) // max(frames, 1)
    still = torch.rand(size, generator=g) < 0.5
    latent = torch.randn(int(scene.max()) + 1, size, 4, generator=g)[scene]
    noise = torch.where(still, 0.05, 2.0)[:, None] * torch.randn(frames, size, 4, generator=g)
    scene_colour = torch.randn(int(scene.max()) + 1, 1, 4, generator=g)[scene]
    return ((latent + noise + 2 * scene_colour) @ torch.randn(4, width, generator=g) / 4,)


def scored_blocks(frames: int, size: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, the block of each row, and what each block keeps: one block a frame, of changing size."""
    sizes = [max(size * (1 + f % 3) // 4, 1) for f in range(frames)]
    block = torch.arange(frames).repeat_interleave(torch.tensor(sizes))
    scores = torch.rand(len(block), generator=torch.Generator().manual_seed(0))
    return scores, block, torch.tensor(plans.proportional(sizes, max(len(block) * 2 // 5, 1)))


CASES: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    "stage 1": (scenes, _fast_stage_one, stage_one),
    "selection": (
        scored_blocks,
        lambda scores, block, quota: plans.select(scores, block, quota.tolist()),
        lambda scores, block, quota: select(scores, block, quota.tolist()),
    ),
}

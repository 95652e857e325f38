"""HoliTom one frame, slot and token at a time: the reference for the real one, as the release structures it."""

import math

import torch
from torch import Tensor

from baselines import holitom as real
from baselines._holitom_plan import choose_windows as real_choose_windows
from baselines._holitom_plan import make_plan, static_runs, transition_similarity
from cacovid.records import Compressed, LayerCut


def choose_windows(similarity: Tensor, tau: float, max_window: int) -> tuple[Tensor, int]:
    """Windows (W, 2) and tokens saved: every window's static slots counted one by one."""
    still = [[bool(s > tau) for s in row] for row in similarity]
    frames, slots = len(similarity) + 1, similarity.shape[1]
    best, start = {-1: 0}, {}
    for last in range(frames):
        best[last], start[last] = best[last - 1], last
        for first in range(last - 1, max(last - max_window, -1), -1):
            static = sum(all(still[t][i] for t in range(first, last)) for i in range(slots))
            saved = best[first - 1] + static * (last - first)
            if saved > best[last]:
                best[last], start[last] = saved, first
    windows, last = [], frames - 1
    while last >= 0:
        windows.insert(0, [start[last], last])
        last = start[last] - 1
    return torch.tensor(windows), best[frames - 1]


def merge_static(x: Tensor, clusters: int, neighbours: int, beta: float) -> real.Merged:
    """Density peaks and weighted means, one slot after the other."""
    x = x.float()
    n, width = x.shape
    dist = [[float((x[i] - x[j]).norm()) / width**0.5 for j in range(n)] for i in range(n)]
    k = min(neighbours, clusters)
    rho = [math.exp(-sum(d * d for d in sorted(dist[i])[:k]) / k) for i in range(n)]
    farthest = max(max(row) for row in dist)
    score = []
    for i in range(n):
        denser = [dist[i][j] for j in range(n) if rho[j] > rho[i] or (rho[j] == rho[i] and j < i)]
        score.append(rho[i] * min(denser, default=farthest))
    centres = sorted(sorted(range(n), key=lambda i: -score[i])[:clusters])
    labels = [min(range(clusters), key=lambda c: dist[i][centres[c]]) for i in range(n)]
    for c, centre in enumerate(centres):
        labels[centre] = c
    rows = []
    for c, centre in enumerate(centres):
        members = [x[i] for i in range(n) if labels[i] == c and i != centre]
        mean = torch.stack(members).mean(0) if members else None
        rows.append(x[centre] if mean is None else beta * x[centre] + (1 - beta) * mean)
    return real.Merged(torch.stack(rows), torch.tensor(centres), torch.tensor(labels))


def outer(
    features: Tensor, scores: Tensor, retention: float, tau: float, max_window: int, neighbours: int, beta: float
) -> Compressed:
    """The whole outer stage with the release's counts, window by window and frame by frame."""
    frames, slots, _ = features.shape
    x = features.float()
    similarity = torch.stack([torch.cosine_similarity(x[f], x[f + 1], dim=-1) for f in range(frames - 1)])
    windows, reduced = choose_windows(similarity, tau, max_window)
    share = min(retention / ((frames * slots - reduced) / (frames * slots)), 1)
    tokens: list[Tensor] = []
    position: list[int] = []
    owner = torch.full((frames, slots), -1)
    for first, last in windows.tolist():
        still = [i for i in range(slots) if last > first and bool((similarity[first:last, i] > tau).all())]
        clusters = round(len(still) * share)
        if clusters:
            merged = merge_static(x[first : last + 1, still].mean(0), clusters, neighbours, beta)
            for i, label in zip(still, merged.labels.tolist(), strict=True):
                owner[first : last + 1, i] = len(tokens) + label
            tokens += list(merged.rows.to(features.dtype))
            position += [first * slots + still[c] for c in merged.centres.tolist()]
        moving = [i for i in range(slots) if i not in still]
        for f in range(first, last + 1):
            kept = sorted(moving, key=lambda i: -float(scores[f, i]))[: math.ceil(len(moving) * share)]
            for i in sorted(kept):
                owner[f, i] = len(tokens)
                tokens.append(features[f, i])
                position.append(f * slots + i)
    return Compressed(torch.stack(tokens), torch.tensor(position), owner.flatten())


def fold(hidden: Tensor, scores: Tensor, keep: int) -> LayerCut:
    """The inner stage: one dropped row after the other is averaged into the kept row most like it."""
    before, out = hidden.float(), hidden.float().clone()
    kept = scores.argsort(descending=True, stable=True)[:keep].tolist()
    for u in range(len(hidden)):
        if u not in kept:
            t = kept[int(torch.cosine_similarity(before[u], before[kept], dim=-1).argmax())]
            out[t] = (out[t] + before[u]) / 2
    rising = torch.tensor(sorted(kept))
    return LayerCut(rising, out[rising].to(hidden.dtype))


SETTINGS = {"retention": 0.25, "tau": 0.8, "max_window": 1024, "neighbours": 7, "beta": 0.6}


def make_video(frames: int, size: int, width: int) -> tuple[Tensor, Tensor]:
    """Features (frames, size, width) of scenes of seven frames whose slots move by unequal amounts, and scores."""
    generator = torch.Generator().manual_seed(frames + size + width)
    scenes = torch.randn(frames // 7 + 1, size, width, generator=generator)
    scenes = scenes * torch.linspace(0.5, 1.5, size)[:, None]  # unequal distances: no near-ties between densities
    motion = torch.rand(size, generator=generator)[:, None]
    noise = torch.randn(frames, size, width, generator=generator)
    features = scenes[torch.arange(frames) // 7] + motion * noise
    return features, torch.rand(frames, size, generator=generator)


def make_similarity(frames: int, size: int, width: int) -> tuple[Tensor]:
    """Similarities of every slot from frame to frame, about half of them above 0.8."""
    generator = torch.Generator().manual_seed(frames + size)
    noise = torch.rand(frames - 1, size, generator=generator)
    return (0.7 + 0.2 * torch.rand(size, generator=generator) + 0.1 * noise,)


def make_rows(frames: int, size: int, width: int) -> tuple[Tensor, Tensor]:
    """Hidden rows of a quarter of the video's tokens, and their attention."""
    generator = torch.Generator().manual_seed(frames + size + width)
    rows = max(frames * size // 4, 2)
    return torch.randn(rows, width, generator=generator), torch.rand(rows, generator=generator)


def _windows(similarity: Tensor) -> tuple[Tensor, ...]:
    windows, reduced = real_choose_windows(static_runs(similarity.cpu(), SETTINGS["tau"]), SETTINGS["max_window"])
    return windows, torch.tensor(reduced)


def _naive_windows(similarity: Tensor) -> tuple[Tensor, ...]:
    windows, reduced = choose_windows(similarity.cpu(), SETTINGS["tau"], SETTINGS["max_window"])
    return windows, torch.tensor(reduced)


def _outer(features: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
    plan = make_plan(
        transition_similarity(features),
        SETTINGS["retention"],
        None,
        tau=SETTINGS["tau"],
        max_window=SETTINGS["max_window"],
    )
    out = real.merge_video(features, scores, plan, neighbours=SETTINGS["neighbours"], beta=SETTINGS["beta"])
    return out.tokens, out.position, out.owner


def _naive_outer(features: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
    out = outer(features, scores, **SETTINGS)
    return out.tokens, out.position, out.owner


def _fold(hidden: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
    cut = real.fold(hidden, scores, len(hidden) // 2)
    return cut.hidden, cut.keep


def _naive_fold(hidden: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
    cut = fold(hidden, scores, len(hidden) // 2)
    return cut.hidden, cut.keep


CASES = {
    "windows": (make_similarity, _windows, _naive_windows),
    "outer stage": (make_video, _outer, _naive_outer),
    "inner stage": (make_rows, _fold, _naive_fold),
}
"""What benchmarks/methods.py times: {label: (make_inputs(frames, size, width), fast, naive)}."""

"""FlashVID token by token and frame by frame, as its code is structured: the reference of `baselines.flashvid`."""

from collections.abc import Callable
from itertools import pairwise
from math import ceil

import torch
from torch import Tensor

from baselines._flashvid_select import select_tokens
from baselines._flashvid_tree import grow_forest
from baselines.flashvid import merge_video


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def naive_segments(means: Tensor, threshold: float, at_least: int) -> list[int]:
    """Length of each segment."""
    likeness = [float(unit(a) @ unit(b)) for a, b in pairwise(means)]
    cuts = [t for t, value in enumerate(likeness) if value < threshold]
    others = sorted((value, t) for t, value in enumerate(likeness) if t not in cuts)
    cuts += [t for _, t in others[: max(at_least - 1 - len(cuts), 0)]]
    ends = [*(t + 1 for t in sorted(cuts)), len(means)]
    return [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def naive_select(
    x: Tensor, attention: Tensor, segment: Tensor, count: int, selector: str = "v2", distinct: bool = True
) -> Tensor:
    """Slots (F, count) of `select_tokens` for its two weighted selectors, in the order picked."""
    picks = []
    for f, tokens in enumerate(x):
        weight = attention[f].clone()
        if selector == "v2":
            own = [c for c in range(len(x)) if segment[c] == segment[f]]
            weight *= torch.stack([tokens @ x[c].mean(0) for c in own]).mean(0)
        of_unit = unit(tokens)
        distance = torch.stack([(1 - of_unit @ of_unit[j]) * weight[j] for j in range(len(tokens))], 1)
        distance.fill_diagonal_(0)
        second = [float(column.sort().values[min(1, len(column) - 1)]) for column in distance.T]
        chosen = [second.index(max(second))]
        while len(chosen) < count:
            nearest = distance[chosen].amin(0)
            if distinct or selector == "v1":
                nearest[chosen] = float("-inf")
            chosen.append(int(nearest.argmax()))
        picks.append(chosen[:count])
    return torch.tensor(picks)


def naive_forest(
    x: Tensor, free: Tensor, segment: Tensor, floor: Tensor, threshold: float, tree_mean: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (N, D) of the tokens that do not merge, root of every token, and which tokens merge (F, S)."""
    frames, slots, _ = x.shape
    rows, count, root = x.clone(), torch.ones(frames, slots), torch.arange(frames * slots).view(frames, slots)
    merged = torch.zeros(frames, slots, dtype=torch.bool)
    start = 0
    while start < frames:
        end = start + int((segment == segment[start]).sum())
        likeness, parent = torch.full((frames, slots), -1.0), torch.zeros(frames, slots, dtype=torch.int64)
        for f in range(start + 1, end):
            before = unit(x[f - 1])
            for u in range(slots):
                cosine = before @ unit(x[f, u])
                cosine[~free[f - 1]] = -1
                parent[f, u] = cosine.argmax()
                likeness[f, u] = float(cosine.max().clamp_max(1)) if free[f, u] else -1.0
        inside = likeness[start:end]
        tokens, least = inside.numel(), int(floor[start:end].sum())
        limit = threshold
        if int((inside <= limit).sum()) < least:
            falling = sorted(inside.flatten().tolist(), reverse=True)
            limit = max(falling[tokens - least - 1], -1 + 1e-6) if tokens > least else 2.0
        for f in range(start, end):
            merged[f] = likeness[f] > limit
        for f in range(end - 1, start - 1, -1):
            for u in range(slots):
                if not merged[f, u]:
                    rows[f, u] /= count[f, u]
                    continue
                p = parent[f, u]
                rows[f - 1, p] += rows[f, u]
                count[f - 1, p] += count[f, u] if tree_mean == "fixed" else 1
        for f in range(start, end):
            for u in range(slots):
                if merged[f, u]:
                    root[f, u] = root[f - 1, parent[f, u]]
        start = end
    return rows.flatten(0, 1), root.flatten(), merged


def naive_clusters(x: Tensor, count: int, k: int) -> tuple[list[int], list[int]]:
    """Centres of density-peak clustering in falling order of score, and the cluster of each point."""
    points = len(x)
    dist = [((x - x[i]).square().sum(1) / x.shape[1]).sqrt() for i in range(points)]
    rho = [float((-row.sort().values[:k].square().mean()).exp()) for row in dist]
    score = []
    for i in range(points):
        denser = [float(dist[i][j]) for j in range(points) if (rho[j], -j) > (rho[i], -i)]
        score.append(rho[i] * (min(denser) if denser else float(torch.stack(dist).max())))
    centres = sorted(range(points), key=lambda i: (-score[i], i))[:count]
    labels = [centres.index(i) if i in centres else int(dist[i][centres].argmin()) for i in range(points)]
    return centres, labels


def naive_shares(roots: list[int], total: int, exact: bool) -> list[int]:
    """Clusters of each frame: rounded up, and, if `exact`, one by one taken back where rounding gained most."""
    share = total / max(sum(roots), 1)
    if share >= 1:
        return list(roots)
    if not exact:
        return [ceil(n * share) for n in roots]
    given = [-(-n * total // sum(roots)) for n in roots]
    gave: set[int] = set()
    while sum(given) > total:
        several = [f for f, n in enumerate(given) if f not in gave and n > 1]
        some = [f for f, n in enumerate(given) if f not in gave and n > 0]
        f = max(several or some, key=lambda f: (given[f] * sum(roots) - roots[f] * total, -f))
        given[f] -= 1
        gave.add(f)
    return given


def naive_merge_video(
    features: Tensor,
    attention: Tensor,
    quota: list[int],
    *,
    alpha: float = 0.7,
    merge_threshold: float = 0.8,
    segment_threshold: float = 0.9,
    min_segments: int = 8,
    neighbours: int = 7,
    selector: str = "v2",
    distinct: bool = True,
    tree_mean: str = "released",
    counts: str = "exact",
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (K, D), flat position (K,) and owner (N,) of `baselines.flashvid.merge_video`."""
    x = features.float()
    frames, slots, _ = x.shape
    out: list[tuple[int, Tensor, list[int]]] = []  # position, row, tokens that went in
    start = 0
    for length in naive_segments(x.mean(1), segment_threshold, min_segments):
        inside = range(start, start + length)
        clip, one = x[start : start + length], torch.zeros(length, dtype=torch.int64)
        own = [ceil(quota[f] * alpha) for f in inside]
        picks = naive_select(clip, attention[start : start + length].float(), one, max(own), selector, distinct)
        free = torch.ones(length, slots, dtype=torch.bool)
        for f in range(length):
            for slot in picks[f, : own[f]].tolist():
                free[f, slot] = False
                at = (start + f) * slots + slot
                out.append((at, features[start + f, slot], [at]))
        floor = torch.tensor([quota[f] for f in inside])
        rows, root, merged = naive_forest(clip, free, one, floor, merge_threshold, tree_mean)
        stays = free & ~merged if length > 1 else torch.ones_like(free)
        tree: dict[int, list[int]] = {}
        for n, r in enumerate(root.tolist()):
            if free.flatten()[n]:
                tree.setdefault(r, []).append(start * slots + n)
        wanted = int(floor.sum()) - sum(own)
        given = naive_shares(stays.sum(1).tolist(), wanted, counts == "exact")
        for f, count in enumerate(given):
            if count == 0:
                continue
            roots = [f * slots + s for s in range(slots) if stays[f, s]]
            if count == len(roots):
                centres = labels = list(range(count))
            else:
                centres, labels = naive_clusters(rows[roots], count, min(count, neighbours))
            for c, centre in enumerate(centres):
                members = [r for r, label in zip(roots, labels, strict=True) if label == c]
                row = rows[members].mean(0).to(features.dtype)
                out.append((start * slots + roots[centre], row, [n for r in members for n in tree.get(r, [])]))
        start += length
    order = sorted(range(len(out)), key=lambda i: out[i][0])
    owner = torch.full((frames * slots,), -1)
    for row, i in enumerate(order):
        owner[out[i][2]] = row
    return torch.stack([out[i][1] for i in order]), torch.tensor([out[i][0] for i in order]), owner


def inputs(frames: int, size: int, width: int) -> tuple[Tensor, Tensor]:
    """Features and attention of a video that changes slowly, with a cut in the middle; its tokens span 16 directions
    around a common mean, so that distances differ as those of real features do."""
    generator = torch.Generator().manual_seed(frames + size + width)
    directions = torch.randn(16, width, generator=generator)
    still = torch.randn(2, size, 16, generator=generator)[(torch.arange(frames) * 2) // max(frames, 1)]
    moving = torch.randn(frames, size, 16, generator=generator) * torch.rand(1, size, 1, generator=generator)
    x = (still + moving) @ directions + torch.randn(width, generator=generator) * 2
    return x + 0.1 * torch.randn(x.shape, generator=generator), torch.rand(frames, size, generator=generator) / size


def forest_inputs(frames: int, size: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, free tokens, one segment a half, and a floor of a fifth of each frame."""
    x, attention = inputs(frames, size, width)
    segment = (torch.arange(frames) * 2) // max(frames, 1)
    return x, attention * size > 0.2, segment, torch.full((frames,), size // 5)


def _quota(attention: Tensor) -> list[int]:
    """r = 0.25 of each frame, expanded."""
    return [max(attention.shape[1] * 5 // 16, 1)] * attention.shape[0]


def _whole(x: Tensor, attention: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    out = merge_video(x, attention, _quota(attention), min_segments=2).compressed
    return out.tokens, out.position, out.owner


def _picked(picks: Tensor) -> Tensor:
    """What is picked of each frame: two picks that are nearly alike may come in either order."""
    return picks.sort(-1).values


CASES: dict[str, tuple[Callable, Callable, Callable]] = {
    "selection by attention and diversity (v2), r = 0.25": (
        inputs,
        lambda x, a: _picked(select_tokens(x, a, torch.zeros(len(x), dtype=torch.int64), max(_quota(a)), "v2")),
        lambda x, a: _picked(naive_select(x, a, torch.zeros(len(x), dtype=torch.int64), max(_quota(a)), "v2")),
    ),
    "trees over time": (
        forest_inputs,
        lambda x, free, segment, floor: _roots(grow_forest(x, free, segment, floor, 0.8, "released")),
        lambda x, free, segment, floor: _roots(naive_forest(x, free, segment, floor, 0.8, "released")),
    ),
    "the whole stage, r = 0.25": (
        inputs,
        _whole,
        lambda x, a: naive_merge_video(x, a, _quota(a), min_segments=2),
    ),
}


def _roots(forest: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the tokens that did not merge: the others mean nothing; then root and merged."""
    rows, root, merged = forest
    return rows[~merged.flatten()], root, merged

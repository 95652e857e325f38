"""FastVID frame by frame and token by token, as the formulas stand: the reference of `baselines.fastvid`."""

from collections.abc import Callable
from itertools import accumulate
from math import ceil

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from baselines._fastvid_head import PoolingHead
from baselines._fastvid_plan import Plan, make_plan, segment_lengths, transitions
from baselines.fastvid import merge_video, peak_scores
from cacovid.records import Compressed


def naive_segments(descriptors: Tensor, min_segments: int, tau: float) -> list[int]:
    """Frames of each segment."""
    frames = len(descriptors)
    similar = [float(_unit(descriptors[j]) @ _unit(descriptors[j + 1])) for j in range(frames - 1)]
    forced = sorted(range(frames - 1), key=lambda j: (similar[j], j))[: min_segments - 1]
    lengths, open_since = [], 0
    for j in range(frames):
        if j == frames - 1 or j in forced or similar[j] < tau:
            lengths.append(j + 1 - open_since)
            open_since = j + 1
    return lengths


def naive_context(lengths: list[int], context: int, every: int) -> list[int]:
    """Context tokens of each frame as released: `context` a frame, gathered in the anchor frames, rest lost."""
    out = []
    for length in lengths:
        share = context * length // ceil(length / every)
        out += [share if (length - 1 - j) % every == 0 else 0 for j in range(length)]
    return out


def naive_peak_scores(tokens: Tensor) -> Tensor:  # (B, U, D)
    """Density times separation of each token in its frame, (B, U); a larger density, or an equal one before, leads."""
    return torch.stack([torch.tensor(_peak_scores_of_frame(frame.double())) for frame in tokens])


def _peak_scores_of_frame(tokens: Tensor) -> list[float]:
    count, width = tokens.shape
    dist = [((tokens - token).square().sum(1) / width).sqrt().tolist() for token in tokens]
    rho = []
    for row in dist:
        nearest = sorted(row)[:4]
        rho.append(torch.tensor(-sum(d * d for d in nearest) / len(nearest), dtype=torch.float64).exp().item())
    furthest = max(max(row) for row in dist)
    scores = []
    for i in range(count):
        denser = [dist[i][j] for j in range(count) if (rho[j], -j) > (rho[i], -i)]
        scores.append(rho[i] * (min(denser) if denser else furthest))
    return scores


def naive_merge_video(features: Tensor, saliency: Tensor, plan: Plan, beta: float) -> Compressed:
    """`baselines.fastvid.merge_video`, one anchor and one pooled token after the other."""
    frames, slots, _ = features.shape
    rows: dict[int, Tensor] = {}  # by flat position
    home: dict[int, int] = {}  # flat position of the row that a token went into
    left: list[list[int]] = []
    for f in range(frames):
        order = sorted(range(slots), key=lambda i: (-float(saliency[f, i]), i))
        for i in order[: plan.salient]:
            rows[f * slots + i] = features[f, i]
            home[f * slots + i] = f * slots + i
        left.append(sorted(order[plan.salient :]))
    for first, stop in zip([0, *accumulate(plan.lengths)], accumulate(plan.lengths), strict=False):
        pool = [(f, i) for f in range(first, stop) for i in left[f]]
        holders = [f for f in range(first, stop) if plan.context[f]]
        for f in holders:
            scores = _peak_scores_of_frame(features[f, left[f]].double())
            best = sorted(range(len(scores)), key=lambda u: (-scores[u], u))[: plan.context[f]]
            anchors = [left[f][u] for u in best]
            units = torch.stack([_unit(features[f, i].double()) for i in anchors])
            groups: list[list[tuple[int, int]]] = [[] for _ in anchors]
            for g, i in pool:
                cosines = (units @ _unit(features[g, i].double())).tolist()
                groups[cosines.index(max(cosines))].append((g, i))
            for anchor, group in zip(anchors, groups, strict=True):
                own = features[f, anchor].double()
                weight = max(1 / (len(group) + 1), beta)
                mean = torch.stack([features[g, i].double() for g, i in group]).mean(0) if group else own
                rows[f * slots + anchor] = (weight * own + (1 - weight) * mean).to(features.dtype)
                for g, i in group:
                    mine = next((h for h in holders if h >= g), holders[-1])
                    if mine == f:
                        home[g * slots + i] = f * slots + anchor
    position = sorted(rows)
    number = {at: n for n, at in enumerate(position)}
    owner = [number[home[n]] if n in home else -1 for n in range(frames * slots)]
    for at in position:
        owner[at] = number[at]
    return Compressed(torch.stack([rows[at] for at in position]), torch.tensor(position), torch.tensor(owner))


def naive_head(patches: Tensor, weights: dict[str, Tensor], heads: int) -> tuple[Tensor, Tensor]:
    """The pooling head frame by frame, with keys and values of every patch."""
    width = patches.shape[-1]
    query, key, value = weights["head.attention.in_proj_weight"].chunk(3)
    bias = weights["head.attention.in_proj_bias"].chunk(3)
    attention, pooled = [], []
    for frame in patches:
        x = layer_norm(frame, (width,), weights["post_layernorm.weight"], weights["post_layernorm.bias"], 1e-6)
        q = (weights["head.probe"][0, 0] @ query.T + bias[0]).view(heads, -1)
        k = (x @ key.T + bias[1]).view(len(x), heads, -1)
        v = (x @ value.T + bias[2]).view(len(x), heads, -1)
        maps = [(k[:, h] @ q[h] / q.shape[1] ** 0.5).softmax(0) for h in range(heads)]
        out = torch.cat([maps[h] @ v[:, h] for h in range(heads)])
        out = out @ weights["head.attention.out_proj.weight"].T + weights["head.attention.out_proj.bias"]
        normed = layer_norm(out, (width,), weights["head.layernorm.weight"], weights["head.layernorm.bias"], 1e-6)
        inner = gelu(normed @ weights["head.mlp.fc1.weight"].T + weights["head.mlp.fc1.bias"], approximate="tanh")
        pooled.append(out + inner @ weights["head.mlp.fc2.weight"].T + weights["head.mlp.fc2.bias"])
        attention.append(torch.stack(maps).mean(0))
    return torch.stack(attention), torch.stack(pooled)


def _unit(x: Tensor) -> Tensor:
    return x / x.norm().clamp_min(1e-12)


def make_video(frames: int, size: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features of 8 hidden directions, saliency and descriptors of a video whose frames drift."""
    generator = torch.Generator().manual_seed(frames + size + width)
    hidden = torch.randn(size, 8, generator=generator) + 0.7 * torch.randn(frames, size, 8, generator=generator)
    features = hidden @ torch.randn(8, width, generator=generator) / 8**0.5
    drift = torch.randn(frames, 16, generator=generator).cumsum(0)
    return features, torch.rand(frames, size, generator=generator), drift + 8


def plan_of(features: Tensor, descriptors: Tensor) -> Plan:
    """The default plan at r = 0.25."""
    frames, slots = features.shape[:2]
    total = round(frames * slots / 4)
    lengths = segment_lengths(transitions(descriptors), 8, 0.9)
    return make_plan(lengths, slots, total // frames, total=total, context_share=0.4, every=4)


def make_patches(frames: int, size: int, width: int) -> tuple[Tensor, ...]:
    """Patches, and a head's weights in the order of `NAMES`; 8 heads."""
    generator = torch.Generator().manual_seed(frames + size + width)
    shapes = {"probe": (1, 1, width), "in_proj_weight": (3 * width, width), "in_proj_bias": (3 * width,)}
    weights = []
    for name in NAMES:
        leaf = name.rpartition(".")[2]
        square = leaf == "weight" and "norm" not in name
        shape = shapes.get(leaf, (width, width) if square else (width,))
        weights.append(torch.randn(shape, generator=generator) * shape[-1] ** -0.5 * (1 if len(shape) > 1 else 3))
    return torch.randn(frames, size, width, generator=generator), *weights


NAMES = (
    "post_layernorm.weight",
    "post_layernorm.bias",
    "head.probe",
    "head.attention.in_proj_weight",
    "head.attention.in_proj_bias",
    "head.attention.out_proj.weight",
    "head.attention.out_proj.bias",
    "head.layernorm.weight",
    "head.layernorm.bias",
    "head.mlp.fc1.weight",
    "head.mlp.fc1.bias",
    "head.mlp.fc2.weight",
    "head.mlp.fc2.bias",
)
HEADS = 8


def _fields(out: Compressed) -> tuple[Tensor, Tensor, Tensor]:
    return out.tokens, out.position, out.owner


def _fast_head(patches: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
    named = dict(zip(NAMES, weights, strict=True))
    return PoolingHead(named, HEADS, 1e-6, lambda x: gelu(x, approximate="tanh"))(patches)


CASES: dict[str, tuple[Callable, Callable, Callable]] = {
    "pruning and merging, r = 0.25": (
        make_video,
        lambda x, a, g: _fields(merge_video(x, a, plan_of(x, g), 0.6)),
        lambda x, a, g: _fields(naive_merge_video(x, a, plan_of(x, g), 0.6)),
    ),
    "density peaks": (
        lambda frames, size, width: make_video(frames, size, width)[:1],
        lambda x: (peak_scores(x),),
        lambda x: (naive_peak_scores(x).float(),),
    ),
    "pooling head": (
        make_patches,
        _fast_head,
        lambda patches, *weights: naive_head(patches, dict(zip(NAMES, weights, strict=True)), HEADS),
    ),
}
"""What benchmarks/methods.py times: {label: (make_inputs(frames, size, width), fast, naive)}."""

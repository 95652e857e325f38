"""FlashVID's merging: over time into trees that hang on the frame before, then over space inside each frame."""

from math import ceil
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import pad

from baselines._flashvid_select import cosines, segment_sums

TreeMean = Literal["released", "fixed"]
"""`fixed`: a root is the mean of its tree. `released`: the sum of its tree over 1 + the root's own children, which is
too long for every tree with grandchildren: the official code adds 1 a child to the count, not the child's count."""

NEVER = -1.0
"""Similarity of tokens that may not merge, as the authors have it; a threshold is at least this plus 1e-6."""


class Forest(NamedTuple):
    """Every token's tree. Tokens that do not merge are roots of their own."""

    rows: Float[Tensor, "N D"]  # float32; of a root: what its tree becomes. Other rows mean nothing
    root: Int64[Tensor, " N"]  # flat position of the root of each token's tree
    merged: Bool[Tensor, "F S"]  # tokens that went into one of the frame before


def best_match(
    x: Float[Tensor, "F S D"], free: Bool[Tensor, "F S"], segment: Int64[Tensor, " F"]
) -> tuple[Float[Tensor, "F S"], Int64[Tensor, "F S"]]:
    """Largest cosine of each token with any free token of the frame before, and that token's slot.

    `NEVER` for tokens that are not free, where nothing is free before, and for the first frame of a segment.
    """
    cosine = cosines(x[1:], x[:-1])  # (F-1, S, S)
    cosine.masked_fill_(~free[:-1, None], NEVER)
    likeness, slot = cosine.max(-1)
    allowed = free[1:] & (segment[1:] == segment[:-1])[:, None]
    likeness = torch.where(allowed, likeness, NEVER).clamp_max(1)  # above 1 is rounding
    return pad(likeness, (0, 0, 1, 0), value=NEVER), pad(slot, (0, 0, 1, 0))


def thresholds(
    likeness: Float[Tensor, "F S"], segment: Int64[Tensor, " F"], floor: Int64[Tensor, " F"], threshold: float
) -> Float[Tensor, "F 1"]:
    """The similarity above which the tokens of each frame merge: `threshold`, or more where too few would be left.

    If a segment of L frames would keep fewer than n = the sum of its frames' `floor`, its threshold is the
    (L S - n)-th largest of its similarities: at least n + 1 tokens stay. Nothing here waits for the device.
    """
    slots = likeness.shape[1]
    tokens = segment_sums(torch.full_like(segment, slots), segment)
    spare = tokens - segment_sums(floor, segment)  # tokens of the segment that may go
    merging = segment_sums((likeness > threshold).sum(1), segment)
    order = likeness.flatten().argsort(descending=True)
    order = order[segment.repeat_interleave(slots)[order].argsort(stable=True)]  # segment by segment, each falling
    start = slots * torch.searchsorted(segment, segment)  # of each frame's segment in `order`
    nth = likeness.flatten()[order][start + (spare - 1).clamp_min(0)].clamp_min(NEVER + 1e-6)
    raised = torch.where(spare > 0, nth, torch.inf)
    return torch.where(merging > spare, raised, threshold)[:, None]


def grow_forest(
    x: Float[Tensor, "F S D"],
    free: Bool[Tensor, "F S"],
    segment: Int64[Tensor, " F"],
    floor: Int64[Tensor, " F"],
    threshold: float,
    tree_mean: TreeMean,
) -> Forest:
    """Merge tokens over time: each joins the most similar `free` token of the frame before, wherever it stands.

    Strictly above `threshold`, which `floor` (tokens that a frame keeps at least, its selected ones included) may
    raise. x is float32. Cost: F S S D. Source: flashvid/utils.py:spatiotemporal_compression, which walks the frames
    backwards; here all parents are known at once, and log2(F) look-ups of the parent's parent find the roots.
    """
    frames, slots, width = x.shape
    likeness, slot = best_match(x, free, segment)
    merged = likeness > thresholds(likeness, segment, floor, threshold)
    own = torch.arange(frames * slots, device=x.device).view(frames, slots)
    parent = torch.where(merged, own[:, :1] - slots + slot, own).flatten()
    root = parent
    for _ in range(max(frames - 1, 1).bit_length()):
        root = root[root]
    rows = torch.zeros(frames * slots, width, device=x.device).index_add_(0, root, x.flatten(0, 1))
    ones = torch.ones_like(rows[:, 0])
    if tree_mean == "fixed":
        count = torch.zeros_like(ones).index_add_(0, root, ones)
    else:
        count = ones.index_add(0, parent, merged.flatten().float())  # itself, and one for each child
    return Forest(rows.div_(count.clamp_min(1)[:, None]), root, merged)


def released_clusters(roots: list[int], total: int) -> list[int]:
    """Clusters of each frame of a segment: ceil(roots * total / all roots), so up to one a frame above `total`.

    In double precision and in this order, as the official code rounds it.
    """
    share = total / max(sum(roots), 1)
    return [min(ceil(n * share), n) for n in roots]


def exact_clusters(roots: list[int], total: int) -> list[int]:
    """The same, but `total` in all (or all roots): what rounding up gained is taken back where it gained most.

    A frame gives its only cluster when no other frame has two; of equal gains the earlier frame gives.

    >>> exact_clusters([5, 1, 4, 0], 5), released_clusters([5, 1, 4, 0], 5)
    ([2, 1, 2, 0], [3, 1, 2, 0])
    """
    everything = sum(roots)
    if total >= everything:
        return list(roots)
    counts = [-(-n * total // everything) for n in roots]
    gain = [count * everything - n * total for count, n in zip(counts, roots, strict=True)]
    giving = sorted((f for f, count in enumerate(counts) if count), key=lambda f: (counts[f] < 2, -gain[f], f))
    for frame in giving[: sum(counts) - total]:
        counts[frame] -= 1
    return counts

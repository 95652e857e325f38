"""FlashVID's vision-side stage as a whole: segments, selection, trees over time, clusters over space."""

from math import ceil
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from baselines._density_peaks import cluster, means
from baselines._flashvid_select import Selector, segment_of_frame, segment_sums, select_tokens
from baselines._flashvid_tree import TreeMean, exact_clusters, grow_forest, released_clusters
from cacovid.records import Compressed

Counts = Literal["exact", "released"]


class Merged(NamedTuple):
    """The vision-side stage and what it went through."""

    compressed: Compressed
    segment: Int64[Tensor, " F"]
    picks: Int64[Tensor, "F n"]  # slots in the order picked; a frame takes as many of them as its quota says
    roots: Bool[Tensor, "F S"]  # tokens that the clustering sees


def merge_video(
    features: Float[Tensor, "F S D"],
    attention: Float[Tensor, "F S"] | None,
    quota: list[int],
    *,
    alpha: float = 0.7,
    merge_threshold: float = 0.8,
    segment_threshold: float = 0.9,
    min_segments: int = 8,
    neighbours: int = 7,
    selector: Selector = "v2",
    distinct: bool = True,
    tree_mean: TreeMean = "released",
    counts: Counts = "exact",
) -> Merged:
    """The vision-side stage: `quota[f]` tokens of each frame, ceil(alpha * quota[f]) of them selected and untouched.

    The other quota of a segment goes to the trees that are left in it, in proportion to the roots in each frame; a
    frame's roots are clustered by density peaks and averaged, a row stands at its centre. A segment of one frame has
    no trees: there ALL tokens are clustered, the selected ones again, so that a position may occur twice.
    Time, then raster order; at one position the selected token first. Source: flashvid/utils.py:segment_compression.
    """
    x = features.float()
    frames, slots, _ = x.shape
    device = x.device
    segment = segment_of_frame(x.mean(1), segment_threshold, min_segments)
    selected = [ceil(kept * alpha) for kept in quota]
    picks = select_tokens(x, attention, segment, max(selected), selector, distinct)

    number = torch.arange(slots, device=device).expand(frames, -1)
    start = slots * torch.arange(frames, device=device)[:, None]
    picked = number[:, : picks.shape[1]] < torch.tensor(selected, device=device)[:, None]
    free = torch.ones_like(number).scatter_reduce_(1, picks, (~picked).long(), "amin").bool()
    kept = torch.tensor(quota, device=device)
    forest = grow_forest(x, free, segment, kept, merge_threshold, tree_mean)
    alone = segment_sums(torch.ones_like(segment), segment) == 1
    roots = (free & ~forest.merged) | alone[:, None]

    # by numbers made on the host: a mask as index would wait for the device
    taken = [f * picks.shape[1] + n for f, count in enumerate(selected) for n in range(count)]
    position = [(start + picks).flatten()[torch.tensor(taken, dtype=torch.int64, device=device)]]
    rows = [features.flatten(0, 1)[position[0]]]
    made = sum(selected)
    row = torch.full((frames * slots,), -1, device=device)  # output row of each root
    order = roots.byte().argsort(dim=1, descending=True, stable=True)  # a frame's roots first
    sizes, labels_of = torch.stack([roots.sum(1), segment]).tolist()  # the one wait for the device
    clusters = _clusters(sizes, labels_of, [k - n for k, n in zip(quota, selected, strict=True)], counts)
    for f, (size, count) in enumerate(zip(sizes, clusters, strict=True)):
        if count == 0:
            continue
        at = f * slots + order[f, :size]
        inside = forest.rows[at]
        if count < size:
            centres, labels = cluster(inside, count, min(count, neighbours))
            inside = means(inside, labels, count)
        else:
            centres = labels = number[f, :size]
        row[at] = made + labels
        position.append(at[centres])
        rows.append(inside.to(features.dtype))
        made += count

    owner = row[forest.root]
    owner.scatter_(0, position[0], torch.arange(len(position[0]), device=device))
    where, by_position = torch.cat(position).sort(stable=True)
    place = torch.empty_like(by_position)
    place[by_position] = torch.arange(made, device=device)
    owner = torch.where(owner < 0, -1, place[owner])
    return Merged(Compressed(torch.cat(rows)[by_position], where, owner), segment, picks, roots)


def _clusters(roots: list[int], segment: list[int], wanted: list[int], counts: Counts) -> list[int]:
    """Clusters of each frame: the merged tokens `wanted` of a segment over its frames' roots."""
    share = exact_clusters if counts == "exact" else released_clusters
    out: list[int] = []
    while len(out) < len(roots):
        inside = slice(len(out), len(out) + segment.count(segment[len(out)]))
        out += share(roots[inside], sum(wanted[inside]))
    return out

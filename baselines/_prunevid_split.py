"""PruneVid's first half of stage 1: temporal segments, and how static each grid position is within them."""

from itertools import groupby

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from baselines._density_peaks import cluster


def frame_labels(features: Float[Tensor, "F S D"], gamma: float, neighbours: int) -> Int64[Tensor, " F"]:
    """Density-peak cluster of each frame, by the mean of its tokens: int(gamma * F) clusters, at least one."""
    means = features.float().mean(1)
    return cluster(means, max(int(gamma * len(means)), 1), neighbours).labels


def run_lengths(labels: list[int]) -> list[int]:
    """Lengths of the runs of equal labels.

    >>> run_lengths([4, 4, 0, 4])
    [2, 1, 1]
    """
    return [len(list(run)) for _, run in groupby(labels)]


def refine(labels: list[int]) -> list[int]:
    """Frame labels as few long runs: modeling_pllava.py:refine_clusters.

    Of each label the runs of its greatest length stay, all of them, unless that length is 1. Left to right, every
    stretch between them then takes the label of the longer neighbour (of equal ones the left, whose length counts
    what it already took), or 0 where nothing stayed.

    >>> refine([0, 0, 1, 0, 0, 2, 2, 1])
    [0, 0, 0, 0, 0, 2, 2, 2]
    """
    runs = [(label, len(list(run))) for label, run in groupby(labels)]
    longest: dict[int, int] = {}
    for label, length in runs:
        longest[label] = max(length, longest.get(label, 0))
    out: list[int] = []
    start = left = 0  # of the current run; length of the run that `out` ends with
    for label, length in runs:
        if length == longest[label] > 1:
            taker = out[-1] if left >= length else label
            out += [taker] * (start - len(out)) + [label] * length
            left = len(list(next(groupby(reversed(out)))[1]))
        start += length
    return out + [out[-1] if out else 0] * (len(labels) - len(out))


def similarity(features: Float[Tensor, "F S D"], lengths: list[int]) -> Float[Tensor, "G S"]:
    """Mean cosine between the frames of each segment at each grid position, pairs of different frames, float32.

    The sum over all pairs is the squared length of the summed unit vectors: O(F S D), no frame x frame matrix.
    A segment of one frame has no pair; it gets -1, not static. A position that is zero in every frame gets
    -1/(W-1), as in the official code, which subtracts a diagonal of ones that zero vectors do not have.
    """
    out = []
    for frames in features.split(lengths):
        w = len(frames)
        unit = nn.functional.normalize(frames.float(), dim=-1)  # (W, S, D)
        pairs = unit.sum(0).square().sum(-1) - w  # (S,)
        out.append(pairs / (w * (w - 1)) if w > 1 else torch.full_like(pairs, -1))
    return torch.stack(out)

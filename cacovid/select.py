"""Top-k with the suite's one tie-break and order: the earlier token wins, the result ascends."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def top_k(scores: Float[Tensor, "*N"], k: int) -> Int64[Tensor, " K"]:
    """Flat positions of the `k` highest scores, ascending; of equal scores the earlier position is kept.

    A stable sort, since `torch.topk` promises nothing about ties and bf16 scores tie by the hundred.
    """
    order = scores.flatten().argsort(descending=True, stable=True)
    return order[:k].sort().values


def evenly_spaced(total: int, count: int) -> Int64[Tensor, " K"]:
    """round(linspace(0, total - 1, count)), half to even, in exact integer arithmetic; one position is 0.

    Floating-point linspace rounds halves differently in numpy, torch and on an accelerator.

    >>> evenly_spaced(10, 4).tolist()
    [0, 3, 6, 9]
    """
    steps = max(count - 1, 1)
    numerator = torch.arange(count) * (total - 1)
    below, rest = numerator // steps, 2 * (numerator % steps)
    return below + ((rest > steps) | ((rest == steps) & (below % 2 == 1)))


def even_quota(budget: int, frames: int) -> list[int]:
    """`budget` spread over `frames` as evenly as integers allow, the larger shares spread over time.

    >>> even_quota(10, 4)
    [2, 3, 2, 3]
    """
    return [(f + 1) * budget // frames - f * budget // frames for f in range(frames)]


def top_k_per_frame(scores: Float[Tensor, "F S"], quota: list[int]) -> Int64[Tensor, " K"]:
    """Flat positions of the `quota[f]` highest scores of each frame f, ascending; ties as in `top_k`."""
    order = scores.argsort(dim=1, descending=True, stable=True)  # (F, S)
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(scores.shape[1], device=scores.device).expand_as(order))
    keep = rank < torch.tensor(quota, device=scores.device)[:, None]  # (F, S)
    return keep.flatten().nonzero().squeeze(1)

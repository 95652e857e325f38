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


def ranks(scores: Float[Tensor, "*B S"]) -> Int64[Tensor, "*B S"]:
    """Rank of each score in its row, 0 the highest; of equal scores the earlier one comes first."""
    order = scores.argsort(dim=-1, descending=True, stable=True)
    places = torch.arange(scores.shape[-1], device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places)


def divide_half_even(numerator: Int64[Tensor, "*B"], steps: int) -> Int64[Tensor, "*B"]:
    """numerator / steps rounded to the nearest integer, halves to even, in exact integer arithmetic."""
    below, rest = numerator // steps, 2 * (numerator % steps)
    return below + ((rest > steps) | ((rest == steps) & (below % 2 == 1)))


def evenly_spaced(total: int, count: int) -> Int64[Tensor, " K"]:
    """round(linspace(0, total - 1, count)), half to even, in exact integer arithmetic; one position is 0.

    Floating-point linspace rounds halves differently in numpy, torch and on an accelerator.

    >>> evenly_spaced(10, 4).tolist()
    [0, 3, 6, 9]
    """
    return divide_half_even(torch.arange(count) * (total - 1), max(count - 1, 1))


def even_quota(budget: int, frames: int) -> list[int]:
    """`budget` spread over `frames` as evenly as integers allow, the larger shares spread over time.

    >>> even_quota(10, 4)
    [2, 3, 2, 3]
    """
    return [(f + 1) * budget // frames - f * budget // frames for f in range(frames)]


def top_k_per_frame(scores: Float[Tensor, "F S"], quota: list[int]) -> Int64[Tensor, " K"]:
    """Flat positions of the `quota[f]` highest scores of each frame f, ascending; ties as in `top_k`."""
    keep = ranks(scores) < torch.tensor(quota, device=scores.device)[:, None]  # (F, S)
    return keep.flatten().nonzero().squeeze(1)

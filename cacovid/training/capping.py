"""Capping: no single token group or frame may take more than a given share of a distribution."""

from math import floor
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

_LARGEST: Final = 0.999
"""No share is fixed above this, so that something is left for the others."""


def cap_probability(p: Float[Tensor, "*B n"], cap: float) -> Float[Tensor, "*B n"]:
    """The distributions with no share above `cap`, batched over leading dimensions.

    As in the release (sample_utils.py: clip_max_probability, a recursion over one vector): raise shares to 1/n^2
    and normalise; while the largest of those not yet fixed is above the cap, fix it there, and do the same with
    the rest, which shares what is left. At most 1/cap of them can be above it, which bounds the loop.

    Raises ValueError where n shares of `cap` do not reach 1.
    """
    n = p.shape[-1]
    if n == 1:
        return torch.ones_like(p)
    if cap * n <= 1:
        raise ValueError(f"cap={cap:g} for {n} shares, expected more than {1 / n:g}: capped shares must sum to 1")
    result = torch.zeros_like(p)
    fixed = torch.zeros_like(p, dtype=torch.bool)
    left, share = 1.0, cap  # what the shares not yet fixed sum to; the cap as a share of that
    rest = p
    for depth in range(min(n - 1, floor(1 / cap)) + 1):
        share = min(share, _LARGEST)
        rest = rest.clamp_min(1 / n**2).masked_fill(fixed, 0.0)
        rest = rest / rest.sum(-1, keepdim=True)
        top, at = rest.max(-1, keepdim=True)
        active = fixed.sum(-1, keepdim=True) == depth  # the others were within the cap before
        result = torch.where(active & ~fixed, rest * left, result)
        chosen = torch.zeros_like(fixed).scatter_(-1, at, active & (top > share) & (depth < n - 1))
        result = result.masked_fill(chosen, left * share)
        fixed = fixed | chosen
        left, share = left * (1 - share), share / (1 - share)
    return result

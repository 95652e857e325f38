"""PruneVid's token counts: how many rows each block gets, and the knobs that meet a budget exactly.

A block is what is clustered alone before the LLM and selected alone inside it: the static positions of a segment,
or the other positions of one of its frames.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from math import ceil

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from cacovid.select import top_k

MIN_BLOCK = 14
"""Blocks of so few tokens are not clustered (hard-coded in modeling_pllava.py:merge_frames_dynamic)."""


def clusters_of(size: int, beta: float) -> int:
    """Rows of a block of `size` tokens: int(size * beta), at least one, or all of `MIN_BLOCK` tokens and fewer."""
    return max(int(size * beta), 1) if size > MIN_BLOCK else size


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Which blocks a video has, and by how much they shrink before the LLM. Everything is on the CPU."""

    lengths: list[int]  # frames of each segment
    static: Bool[Tensor, "G S"]  # static grid positions of each segment
    beta: float  # share of a block's tokens that become rows

    def segments(self) -> Iterable[tuple[int, int, int]]:
        """(frames, static positions, other positions) of each segment."""
        for frames, static in zip(self.lengths, self.static.sum(1).tolist(), strict=True):
            yield frames, static, self.static.shape[1] - static

    def blocks(self) -> list[int]:
        """Rows of each block in output order: a segment's static block, then the block of each of its frames."""
        rows: list[int] = []
        for frames, static, dynamic in self.segments():
            rows += [clusters_of(static, self.beta)] + [clusters_of(dynamic, self.beta)] * frames
        return rows

    def rows(self, beta: float | None = None) -> int:
        """Rows in all, r1 N: with this plan's beta or another one."""
        beta = self.beta if beta is None else beta
        return sum(clusters_of(s, beta) + w * clusters_of(d, beta) for w, s, d in self.segments())

    def block_of_token(self) -> Int64[Tensor, "F S"]:
        """Number of the block that each input token belongs to; a static position is in one block in all frames."""
        out, block = [], 0
        for frames, static in zip(self.lengths, self.static, strict=True):
            dynamic = torch.arange(block + 1, block + 1 + frames)[:, None]
            out.append(torch.where(static, block, dynamic))
            block += 1 + frames
        return torch.cat(out)


def fit(plan: Plan, similarity: Float[Tensor, "G S"], budget: int, alpha: float | None) -> Plan:
    """The plan with enough rows for `budget` tokens to be left after the selection, and no more than it needs.

    `alpha` None: beta stays where it gives `budget` rows. A number: beta is solved in both directions, so that the
    selection keeps that share (up to the rounding of the counts, and while beta = 1 gives as many).
    In both: where beta = 1 gives too few rows because the video is too static, the least similar static positions
    become dynamic (a higher tau for them alone; ties: the earlier segment, then position) until it does.
    """
    ceiling = plan.rows(1.0)
    if ceiling < budget:
        gain = torch.tensor(plan.lengths)[:, None].expand_as(plan.static) - 1  # rows won by each such position
        order = similarity.flatten().argsort(stable=True)
        order = order[plan.static.flatten()[order]]
        enough = int((gain.flatten()[order].cumsum(0) < budget - ceiling).sum()) + 1
        static = plan.static.flatten().clone()
        static[order[:enough]] = False
        plan = replace(plan, static=static.view_as(plan.static))
        ceiling = plan.rows(1.0)
    if alpha is not None:
        return replace(plan, beta=smallest_beta(plan, max(budget, min(ceil(budget / alpha), ceiling)), 0.0))
    return plan if plan.rows() >= budget else replace(plan, beta=smallest_beta(plan, budget, plan.beta))


def smallest_beta(plan: Plan, rows: int, low: float) -> float:
    """Smallest beta in (low, 1] with at least `rows` rows, to 2**-40, by bisection on the exact counts."""
    high = 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if plan.rows(middle) >= rows else (middle, high)
    return high


def proportional(blocks: list[int], budget: int) -> list[int]:
    """`budget` tokens over blocks in proportion to their rows, exactly: each gets its share rounded down or up.

    By the running total, rounded down, so that the larger shares spread over time; equal blocks give `even_quota`.

    >>> proportional([10, 7, 7, 0, 4], 12)
    [4, 3, 3, 0, 2]
    """
    total = sum(blocks)
    edges = [end * budget // total for end in accumulate(blocks, initial=0)]
    return [b - a for a, b in pairwise(edges)]


def released(blocks: list[int], alpha: float) -> list[int]:
    """int(alpha * rows) of each block, as the code has it: at alpha = 0.4 two rows and fewer keep none."""
    return [int(alpha * rows) for rows in blocks]


def select(scores: Float[Tensor, " K"], block: Int64[Tensor, " K"], quota: list[int]) -> Int64[Tensor, " k"]:
    """Rows with the `quota[b]` highest scores of each block b, ascending; of equal scores the earlier row.

    Where the quotas are all zero the one highest score stays: a cut must leave something.
    """
    if not any(quota):
        return top_k(scores, 1)
    order = scores.argsort(descending=True, stable=True)
    order = order[block[order].argsort(stable=True)]  # by block, then by falling score
    sizes = block.bincount(minlength=len(quota))
    place = torch.arange(len(block), device=block.device) - (sizes.cumsum(0) - sizes)[block[order]]
    return order[place < torch.tensor(quota, device=block.device)[block[order]]].sort().values

"""FrameFusion's two calls, on the rows of one sample's video tokens: merge what is alike in time, prune once."""

from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from cacovid.errors import BudgetError, MethodError
from cacovid.records import LayerCut
from cacovid.select import top_k

HEAD: Final = -2.0  # similarity of a chain's first token, which has no predecessor: below every cosine
ROWS_AT_ONCE: Final = 512
NOISE: Final = 1e-9  # keeps floating-point error from costing a pair where need * count is an integer


def need(fractions: tuple[float, ...], cost: float, layers: int = 28) -> float:
    """Share of the current video tokens to drop now so that the mean over all `layers` becomes `cost`.

    `fractions` are the shares merged by the calls so far; call j sets the count of layer j. The released code has
    28 layers whatever the model (framefusion/main.py:_compute_pruning_ratio).
    Raises BudgetError where the layers that already ran have spent more than the whole budget.

    >>> round(need((0.5, 0.2), 0.3), 6)
    0.278846
    """
    if len(fractions) >= layers:
        raise BudgetError(f"{len(fractions)} merging calls, expected fewer than the LLM's {layers} layers")
    left, spent = 1.0, 0.0  # share of the video tokens still there; layers' worth of tokens computed
    for fraction in fractions:
        left *= 1 - fraction
        spent += left
    rest = layers * cost - spent
    if rest < 0:
        raise BudgetError(
            f"retention {cost:.4g} over {layers} layers is spent: {len(fractions)} layers of slow merging computed "
            f"{spent:.4g} layers' worth of tokens, expected at most {layers * cost:.4g}; "
            f"use overrun='prune' or a higher retention"
        )
    return 1 - min(rest / ((layers - len(fractions)) * left), 1.0) if left else 0.0


def chain_similarity(hidden: Float[Tensor, "K D"], patch: Int64[Tensor, " K"]) -> Float[Tensor, " K"]:
    """Cosine of each token with the token before it of the same patch, float32; `HEAD` where there is none.

    Tokens come in order of time. After a merge or cut the predecessor may lie several frames back. Zero vectors
    are like nothing (0).
    """
    order = patch.argsort(stable=True)  # chain after chain, each in order of time
    norms, products = [], []
    for start in range(0, len(order), ROWS_AT_ONCE):  # no second copy of all hidden states
        rows = hidden[order[max(start - 1, 0) : start + ROWS_AT_ONCE]].float()  # and the one before them
        norms.append(torch.linalg.vector_norm(rows[min(start, 1) :], dim=-1))
        products.append((rows[1:] * rows[:-1]).sum(-1))
    norm, chain = torch.cat(norms), patch[order]
    floor = torch.finfo(torch.float32).tiny
    cosine = torch.cat(products) / (norm[1:] * norm[:-1]).clamp_min(floor)
    similarity = cosine.new_full((len(patch),), HEAD)
    similarity[order[1:]] = cosine.masked_fill(chain[1:] != chain[:-1], HEAD)
    return similarity


def merge_runs(
    hidden: Float[Tensor, "K D"], patch: Int64[Tensor, " K"], merging: Bool[Tensor, " K"]
) -> tuple[Int64[Tensor, " M"], Float[Tensor, "M D"]]:
    """Collapse every run of `merging` tokens of a chain into the token before it, the earliest in time.

    Returns the rows that stay, ascending, and their values: the plain mean of run and anchor, summed in float32.
    What earlier calls averaged counts once. A chain's first token must not be among `merging`.
    """
    order = patch.argsort(stable=True)
    stays = ~merging[order]
    keep, place = order[stays].sort()  # anchors in chain order -> in order of time
    row = torch.empty_like(place).scatter_(0, place, torch.arange(len(place), device=place.device))
    owner = torch.empty_like(order).scatter_(0, order, row[stays.cumsum(0) - 1])  # output row of each token
    size = owner.bincount(minlength=len(keep))
    joins = merging.nonzero().squeeze(1)
    sums = hidden[keep].float().index_add_(0, owner[joins], hidden[joins].float())
    return keep, (sums / size[:, None]).to(hidden.dtype)  # x / 1: rows that nothing joins stay bit-equal


@dataclass(frozen=True, slots=True)
class Progress:
    """What the calls so far have done to one sample."""

    fractions: tuple[float, ...] = ()  # share of the tokens then there that each call merged
    merged: bool = False  # merging is finished
    pruned: bool = False  # everything is finished


def merging_call(
    hidden: Float[Tensor, "K D"],
    patch: Int64[Tensor, " K"],
    progress: Progress,
    cost: float,
    *,
    similarity: float,
    merge_ratio: float,
    layers: int = 28,
) -> tuple[LayerCut, Progress]:
    """One merging call: pairs of at least `similarity` merge, but no more of them than the budget asks for.

    Fewer than the budget asks: merging goes on, or is finished if they are less than `merge_ratio` of the tokens.
    As many or more: the most similar floor(need * K) merge, and everything is finished.
    Raises BudgetError as `need` does.
    """
    drop = need(progress.fractions, cost, layers)
    alike = chain_similarity(hidden, patch)
    merging = alike >= similarity
    fraction = int(merging.sum()) / len(patch)
    if fraction < drop:
        progress = Progress((*progress.fractions, fraction), merged=fraction < merge_ratio)
    else:
        chosen = top_k(alike.masked_fill(~merging, HEAD), int(drop * len(patch) + NOISE))
        merging = torch.zeros_like(merging).index_fill_(0, chosen, True)
        progress = Progress(progress.fractions, merged=True, pruned=True)
    return LayerCut(*merge_runs(hidden, patch, merging)), progress


def pruning_call(attention: Float[Tensor, "*heads K"], target: float) -> Int64[Tensor, " M"]:
    """Rows of the round(target) tokens with the largest attention, mean over heads; half to even, at least one."""
    return top_k(attention.flatten(0, -2).mean(0), max(round(target), 1))


def median_similarity(features: Float[Tensor, "F S D"]) -> float:
    """Median over a video of the similarity of adjacent frames, patch by patch, at the first layer's input.

    The authors set the threshold to its mean over about 128 videos (paper; github.com/thu-nics/FrameFusion issue 13).
    Raises MethodError for a video of one frame.
    """
    frames, size = features.shape[:2]
    if frames < 2:
        raise MethodError("a video of 1 frame has no adjacent frames, expected at least 2")
    patch = torch.arange(size, device=features.device).repeat(frames)
    return chain_similarity(features.flatten(0, 1), patch)[size:].median().item()

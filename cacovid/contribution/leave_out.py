"""What each video token contributes to an answer: measured on the LLM itself, by leaving tokens out at random.

A token's contribution is the mean change in the log-probability of the right answer when it joins a random kept
set: the Banzhaf value of the game "which tokens are kept", with every other token kept with probability q. One
sampled set tells of all tokens at once (the maximum-sample-reuse estimator of Wang and Jia, Data Banzhaf, AISTATS
2023, with q for its 1/2).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def random_sets(tokens: int, sets: int, keep: float, generator: torch.Generator) -> Bool[Tensor, "M N"]:
    """Kept sets in which every token stays with probability `keep`, independently.

    Raises ValueError where `keep` leaves no token both in and out, or there are too few sets to compare.
    """
    if not 0 < keep < 1 or sets < 2:
        raise ValueError(f"keep={keep}, sets={sets}; expected 0 < keep < 1 and at least 2 sets")
    return torch.rand(sets, tokens, generator=generator) < keep


def contributions(masks: Bool[Tensor, "M N"], values: Float[Tensor, " M"]) -> Float[Tensor, " N"]:
    """Mean value of the sets with a token, minus that of the sets without it; NaN for one never in, or never out."""
    kept, values = masks.double(), values.double()
    inside, outside = kept.sum(0), (1 - kept).sum(0)
    return (values @ kept) / inside - (values @ (1 - kept)) / outside

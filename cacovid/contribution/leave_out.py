"""What each video token contributes to an answer: measured on the LLM itself, by leaving tokens out at random.

A token's contribution is the mean change in the log-probability of the right answer when it joins a random kept
set: the Banzhaf value of the game "which tokens are kept", with every other token kept with probability q. One
sampled set tells of all tokens at once (the maximum-sample-reuse estimator of Wang and Jia, Data Banzhaf, AISTATS
2023, with q for its 1/2).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cacovid.backbones.base import Backbone
from cacovid.records import VideoTokens
from cacovid.training.answering import UNPRUNED, sequences_of


def random_sets(tokens: int, sets: int, keep: float, generator: torch.Generator) -> Bool[Tensor, "M N"]:
    """Kept sets in which every token stays with probability `keep`, independently.

    Raises ValueError where `keep` leaves no token both in and out, or there are too few sets to compare.
    """
    if not 0 < keep < 1 or sets < 2:
        raise ValueError(f"keep={keep}, sets={sets}; expected 0 < keep < 1 and at least 2 sets")
    return torch.rand(sets, tokens, generator=generator) < keep


@torch.inference_mode()
def log_probabilities(
    backbone: Backbone, video: VideoTokens, masks: Bool[Tensor, "M N"], reply: str, together: int = 64
) -> Float[Tensor, " M"]:
    """Natural log-probability of `reply`, all its tokens, on each kept set; float64.

    Kept tokens stay at their original positions. Sets of like size share a batch.
    """
    ids = backbone.tokenizer(reply, add_special_tokens=False).input_ids
    if not ids:
        raise ValueError(f"reply={reply!r} has no tokens; give the words of the right answer")
    sequences = sequences_of(backbone, video, masks)
    order = sorted(range(len(masks)), key=lambda i: sequences[i].rows)
    out = torch.zeros(len(masks), dtype=torch.float64)
    for begin in range(0, len(order), together):
        chosen = order[begin : begin + together]
        state = backbone.decoder.prefill([sequences[i] for i in chosen], UNPRUNED)
        logits = state.logits
        for step, token in enumerate(ids):
            out[chosen] += logits.double().log_softmax(-1)[:, token].cpu()
            if step + 1 < len(ids):
                tokens = torch.full((len(chosen),), token, device=logits.device)
                logits = backbone.decoder.decode(state, tokens, step, UNPRUNED)
    return out


def contributions(masks: Bool[Tensor, "M N"], values: Float[Tensor, " M"]) -> Float[Tensor, " N"]:
    """Mean value of the sets with a token, minus that of the sets without it; NaN for one never in, or never out."""
    kept, values = masks.double(), values.double()
    inside, outside = kept.sum(0), (1 - kept).sum(0)
    return (values @ kept) / inside - (values @ (1 - kept)) / outside

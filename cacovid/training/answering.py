"""The frozen LLM answers one question on many kept sets of its video at once."""

import collections.abc
from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cacovid.backbones.base import Backbone
from cacovid.backbones.decoder import Prefilled
from cacovid.backbones.generation import Stopping, generate
from cacovid.method import Method, Positions
from cacovid.records import Compressed, VideoTokens


@dataclass(frozen=True, kw_only=True)
class _Original(Method):
    """No method at all: tells the backbone that kept tokens stay at their original positions."""

    positions: ClassVar[Positions] = "original"


UNPRUNED: Final[Method] = _Original()
"""The method to hand to the decoder."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One prompt with its video's tokens, and the sets of them on which it is to be answered."""

    prompt: str
    video: VideoTokens
    masks: Bool[Tensor, "G N"]


def _batches(
    backbone: Backbone, asks: collections.abc.Sequence[Ask], together: int
) -> collections.abc.Iterator[tuple[list[int], Prefilled]]:
    """All kept sets of all asks, prefilled `together` at a time: their numbers, counted through, and the state.

    Tokens stay at their original positions. Sets of one size make batches without padding, whatever ask they are of.
    """
    sequences = []
    for ask in asks:
        for mask in ask.masks:
            kept = mask.nonzero().flatten()
            sequences.append(backbone.sequence(ask.video, Compressed.keep(ask.video, kept), len(kept), UNPRUNED))
    order = sorted(range(len(sequences)), key=lambda i: sequences[i].rows)
    for begin in range(0, len(order), together):
        chosen = order[begin : begin + together]
        yield chosen, backbone.decoder.prefill([sequences[i] for i in chosen])


@torch.inference_mode()
def answer_all(
    backbone: Backbone, asks: collections.abc.Sequence[Ask], *, max_new_tokens: int = 16, together: int = 256
) -> list[list[str]]:
    """Greedy replies, one list an ask, one reply a mask; `together` sequences run as one batch."""
    stopping = Stopping.from_config(backbone.model.generation_config, max_new_tokens, ())
    prompts = [torch.cat(backbone.penalised(ask.prompt)) for ask in asks]
    prompt_of = [prompt for ask, prompt in zip(asks, prompts, strict=True) for _ in ask.masks]
    replies = [""] * len(prompt_of)
    for chosen, state in _batches(backbone, asks, together):
        seen = [prompt_of[i] for i in chosen]
        generated = generate(backbone.decoder, state, backbone.tokenizer, seen, stopping)
        for i, out in zip(chosen, generated, strict=True):
            replies[i] = out.text
    ends = iter(replies)
    return [[next(ends) for _ in ask.masks] for ask in asks]


@torch.inference_mode()
def log_probabilities(
    backbone: Backbone, asks: collections.abc.Sequence[Ask], replies: collections.abc.Sequence[str], together: int = 256
) -> list[Float[Tensor, " G"]]:
    """Natural log-probability of a given reply to each ask, all its tokens, on each of its kept sets; float64.

    Raises ValueError for a reply without a token.
    """
    ids_of = [backbone.tokenizer(reply, add_special_tokens=False).input_ids for reply in replies]
    for reply, ids in zip(replies, ids_of, strict=True):
        if not ids:
            raise ValueError(f"reply={reply!r} has no tokens; give the words of the right answer")
    wanted = [ids for ask, ids in zip(asks, ids_of, strict=True) for _ in ask.masks]
    out = torch.zeros(len(wanted), dtype=torch.float64)
    for chosen, state in _batches(backbone, asks, together):
        logits, longest = state.logits, max(len(wanted[i]) for i in chosen)
        for step in range(longest):
            # A reply that is over repeats its last token, which counts no more.
            tokens = torch.tensor([wanted[i][min(step, len(wanted[i]) - 1)] for i in chosen], device=logits.device)
            alive = torch.tensor([step < len(wanted[i]) for i in chosen])
            said = logits.double().log_softmax(-1).gather(1, tokens[:, None])[:, 0].cpu()
            out[chosen] += torch.where(alive, said, 0.0)
            if step + 1 < longest:
                logits = backbone.decoder.decode(state, tokens, step)
    return list(out.split([len(ask.masks) for ask in asks]))

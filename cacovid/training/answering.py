"""The frozen LLM answers one question on many kept sets of its video at once."""

import collections.abc
from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from jaxtyping import Bool
from torch import Tensor

from cacovid.backbones.base import Backbone
from cacovid.backbones.decoder import Sequence
from cacovid.backbones.generation import Stopping, generate
from cacovid.method import Method, Positions
from cacovid.records import Compressed, VideoTokens


@dataclass(frozen=True, kw_only=True)
class _Original(Method):
    """No method at all: tells the backbone that kept tokens stay at their original positions."""

    positions: ClassVar[Positions] = "original"


UNPRUNED: Final[Method] = _Original()
"""The method to hand to the decoder together with `sequences_of`."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One prompt with its video's tokens, and the sets of them on which it is to be answered."""

    prompt: str
    video: VideoTokens
    masks: Bool[Tensor, "G N"]


def sequences_of(backbone: Backbone, video: VideoTokens, masks: Bool[Tensor, "G N"]) -> list[Sequence]:
    """One LLM input a kept set, its tokens at their original positions."""
    kept = [mask.nonzero().flatten() for mask in masks]
    return [backbone.sequence(video, Compressed.keep(video, one), len(one), UNPRUNED) for one in kept]


@torch.inference_mode()
def answer_all(
    backbone: Backbone, asks: collections.abc.Sequence[Ask], *, max_new_tokens: int = 16, together: int = 256
) -> list[list[str]]:
    """Greedy replies, one list an ask, one reply a mask; `together` sequences run as one batch.

    Sets of one size make batches without padding, whatever question they belong to.
    """
    method = UNPRUNED
    stopping = Stopping.from_config(backbone.model.generation_config, max_new_tokens, ())
    flat = [ask for ask in asks for _ in ask.masks]
    sequences = [sequence for ask in asks for sequence in sequences_of(backbone, ask.video, ask.masks)]
    order = sorted(range(len(flat)), key=lambda i: sequences[i].rows)
    replies = [""] * len(flat)
    for begin in range(0, len(order), together):
        chosen = order[begin : begin + together]
        state = backbone.decoder.prefill([sequences[i] for i in chosen], method)
        prompts = [torch.cat(backbone.penalised(flat[i].prompt)) for i in chosen]
        generated = generate(backbone.decoder, state, method, backbone.tokenizer, prompts, stopping)
        for i, out in zip(chosen, generated, strict=True):
            replies[i] = out.text
    ends = iter(replies)
    return [[next(ends) for _ in ask.masks] for ask in asks]

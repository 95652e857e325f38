"""The frozen LLM answers one question on many kept sets of its video at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from cacovid.backbones.base import Backbone
from cacovid.backbones.generation import Stopping, generate
from cacovid.method import Method, Positions
from cacovid.records import Compressed, VideoTokens


@dataclass(frozen=True, kw_only=True)
class _Original(Method):
    """No method at all: tells the backbone that kept tokens stay at their original positions."""

    positions: ClassVar[Positions] = "original"


@dataclass(frozen=True, slots=True)
class Ask:
    """One prompt with its video's tokens, and the sets of them on which it is to be answered."""

    prompt: str
    video: VideoTokens
    masks: Bool[Tensor, "G N"]


@torch.inference_mode()
def answer_all(
    backbone: Backbone, asks: Sequence[Ask], *, max_new_tokens: int = 16, together: int = 256
) -> list[list[str]]:
    """Greedy replies, one list an ask, one reply a mask; `together` sequences run as one batch.

    Sets of one size make batches without padding, whatever question they belong to.
    """
    method = _Original()
    stopping = Stopping.from_config(backbone.model.generation_config, max_new_tokens, ())
    flat = [(ask, mask) for ask in asks for mask in ask.masks]
    sequences = []
    for ask, mask in flat:
        kept = mask.nonzero().flatten()
        sequences.append(backbone.sequence(ask.video, Compressed.keep(ask.video, kept), len(kept), method))
    order = sorted(range(len(flat)), key=lambda i: sequences[i].rows)
    replies = [""] * len(flat)
    for begin in range(0, len(order), together):
        chosen = order[begin : begin + together]
        state = backbone.decoder.prefill([sequences[i] for i in chosen], method)
        prompts = [torch.cat(backbone.penalised(flat[i][0].prompt)) for i in chosen]
        generated = generate(backbone.decoder, state, method, backbone.tokenizer, prompts, stopping)
        for i, out in zip(chosen, generated, strict=True):
            replies[i] = out.text
    ends = iter(replies)
    return [[next(ends) for _ in ask.masks] for ask in asks]

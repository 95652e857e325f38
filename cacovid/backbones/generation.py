"""Greedy generation with the semantics of transformers' `generate`: end tokens, stop strings, token limit."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformers import RepetitionPenaltyLogitsProcessor

from cacovid.backbones.decoder import Decoder, Prefilled


@dataclass(frozen=True, slots=True)
class Stopping:
    """When to stop, and what the checkpoint's own generation config adds (greedy decoding uses no more of it)."""

    max_new_tokens: int
    stop_strings: tuple[str, ...] = ()
    end_ids: frozenset[int] = frozenset()
    repetition_penalty: float = 1.0  # Qwen2-based checkpoints ship 1.05 to 1.1, and `generate` applies it

    @classmethod
    def from_config(cls, generation: Any, max_new_tokens: int, stop_strings: tuple[str, ...]) -> "Stopping":
        """From a transformers GenerationConfig. Raises ValueError for a limit below one token."""
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={max_new_tokens}, expected at least 1")
        end = generation.eos_token_id
        ends = end if isinstance(end, list) else [] if end is None else [end]
        penalty = generation.repetition_penalty
        return cls(max_new_tokens, stop_strings, frozenset(ends), 1.0 if penalty is None else float(penalty))


@dataclass(slots=True, eq=False)
class Generated:
    """One sample's answer: its tokens (end token included), text, and the float32 logits if they were asked for."""

    ids: list[int] = field(default_factory=list)
    text: str = ""
    logits: list[Float[Tensor, " V"]] = field(default_factory=list)
    done: bool = False


def generate(
    decoder: Decoder,
    state: Prefilled,
    tokenizer: Any,
    prompts: list[Int64[Tensor, " P"]],
    stopping: Stopping,
    keep_logits: bool = False,
) -> list[Generated]:
    """Decode greedily from a prefilled cache until every sample is done.

    `prompts` are the token ids that a repetition penalty looks at. The text ends before a stop string.
    """
    out = [Generated() for _ in state.sequences]
    penalty = None
    if stopping.repetition_penalty != 1.0:
        penalty = RepetitionPenaltyLogitsProcessor(stopping.repetition_penalty)
    logits = state.logits
    for step in range(stopping.max_new_tokens):
        chosen = []
        for i, sample in enumerate(out):
            row = logits[i].float()
            if keep_logits and not sample.done:
                sample.logits.append(row)
            if penalty is not None:
                seen = torch.cat([prompts[i], prompts[i].new_tensor(sample.ids)])
                row = penalty(seen[None], row[None].clone())[0]
            chosen.append(row.argmax())
        tokens = torch.stack(chosen)
        for token, sample in zip(tokens.tolist(), out, strict=True):
            if not sample.done:
                _append(sample, token, tokenizer, stopping)
        if all(sample.done for sample in out) or step + 1 == stopping.max_new_tokens:
            break
        logits = decoder.decode(state, tokens, step)
    return out


def _append(sample: Generated, token: int, tokenizer: Any, stopping: Stopping) -> None:
    sample.ids.append(token)
    text = tokenizer.decode(sample.ids, skip_special_tokens=True)
    cuts = [text.index(s) for s in stopping.stop_strings if s and s in text]
    sample.text = text[: min(cuts)] if cuts else text
    sample.done = token in stopping.end_ids or bool(cuts)

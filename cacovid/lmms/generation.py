"""A task's `generation_kwargs`: what is honoured, what is greedy anyway, what is refused."""

from dataclasses import dataclass
from typing import Any

from cacovid.lmms.arguments import ArgumentError

_NO_EFFECT = {"top_p", "top_k", "use_cache", "image_aspect_ratio", "seed"}  # sampling only, or not about text
_DEFAULT_NEW_TOKENS = 1024  # as in lmms-eval's own models


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Greedy generation: token limit and stop strings."""

    max_new_tokens: int
    until: tuple[str, ...]


def parse_generation(given: dict[str, Any]) -> Generation:
    """Decoding is greedy: temperature 0, do_sample false, or neither said.

    Raises ArgumentError for sampling, beams, and arguments that would change the text but are not supported.
    """
    given = dict(given)
    until = given.pop("until", None) or ()
    limit = given.pop("max_new_tokens", None)
    sampled = given.pop("do_sample", None)
    temperature = float(given.pop("temperature", None) or 0)
    beams = given.pop("num_beams", None) or 1
    if beams != 1:
        raise ArgumentError(f"num_beams={beams}: only greedy decoding is supported; pass --gen_kwargs num_beams=1")
    if temperature > 0 and sampled is not False:
        raise ArgumentError(
            f"temperature={temperature} asks for sampling, only greedy decoding is supported (one answer a sample, "
            f"the same in every run); pass --gen_kwargs temperature=0,do_sample=False"
        )
    if given.pop("repetition_penalty", None) not in (None, 1):
        raise ArgumentError("repetition_penalty of a task is not supported; the checkpoint's own is applied")
    if extra := sorted(set(given) - _NO_EFFECT):
        raise ArgumentError(
            f"generation argument {', '.join(map(repr, extra))} is not supported; honoured: max_new_tokens, until, "
            f"and do_sample, temperature, num_beams where they mean greedy decoding"
        )
    return Generation(
        max_new_tokens=int(_DEFAULT_NEW_TOKENS if limit is None else limit),
        until=(until,) if isinstance(until, str) else tuple(until),
    )

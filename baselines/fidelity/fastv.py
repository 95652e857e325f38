"""FastV against the release: kept rows of given attention, and whole tiny models through our decoder."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from baselines._attention_rows import row_scores
from baselines.fastv import FastV, kept_tokens
from baselines.fidelity.checks import Check, cases, close, same
from cacovid.backbones.decoder import Decoder, Sequence
from cacovid.errors import BudgetError
from cacovid.records import VideoTokens
from cacovid.select import top_k
from cacovid.state import PrefillState

SCORE, RELEASE, REFERENCE = 1e-5, 2e-4, 5e-4
"""Largest absolute differences: scores; logits of the release's float32 run; float64 logits against a float32 model."""


def check(folder: Path) -> list[Check]:
    """All vectors of the folder `fastv`."""
    checks: list[Check] = []
    for stem, case, tensors in cases(folder):
        checks += (_given if "last_row" in tensors else _model)(stem, case["params"], tensors)
    return checks


class _Noting(FastV):
    """FastV that leaves its scores in the sample's memo, and takes the attention from there if it is given."""

    def score(self, state: PrefillState) -> Tensor:
        given: Any = state
        if "attention" in state.memo:
            given = SimpleNamespace(attention=lambda rows: state.memo["attention"], last_row=state.last_row)
        state.memo["score"] = scores = super().score(given)
        return scores


def _given(stem: str, parameters: dict[str, Any], tensors: dict[str, Tensor]) -> list[Check]:
    """Selection from a given attention row (H, S); the LLM around it is a random one, as its numbers do not count."""
    start, total, rows, layer = (parameters[name] for name in ("video_start", "video_tokens", "sequence", "K"))
    weights = tensors["last_row"][None, :, start : start + total]
    scores = row_scores(cast(Any, SimpleNamespace(attention=lambda _: weights)), torch.tensor([rows - 1]))
    checks = [close(f"{stem} score", scores, tensors["score"], SCORE)]
    config = Qwen2Config(
        hidden_size=8, num_attention_heads=1, num_key_value_heads=1, num_hidden_layers=layer + 1, intermediate_size=8
    )
    with torch.random.fork_rng():
        model = Qwen2ForCausalLM(config).requires_grad_(False)
    for ratio in parameters["prune_ratios"]:
        name, keep = f"{stem} R={ratio}", 1 - ratio
        expected = parameters["kept_video_tokens"][str(ratio)]
        count = kept_tokens(keep, total, "round")
        checks.append(Check(f"{name} count", count == expected, f"{count} tokens, expected {expected}"))
        if expected:
            method = _Noting(layer=layer, retention=keep)
            sequence = _sequence(torch.zeros(rows, 8), start, total, method)
            sequence.memo["attention"] = weights
            Decoder(model.model, model.lm_head).prefill([sequence])
            kept, positions = _rows(sequence.flat, start, total, rows), sequence.positions
        else:  # the release drops the whole video, which the method refuses: its parts are compared
            checks.append(_refusal(f"{name} refused", keep))
            kept = positions = _rows(top_k(scores, count), start, total, rows)
        checks.append(same(f"{name} kept", kept, tensors[f"R{ratio}.kept"]))
        checks.append(same(f"{name} position_ids", positions, tensors[f"R{ratio}.position_ids"]))
    return checks


def _refusal(name: str, retention: float) -> Check:
    try:
        FastV(retention=retention)
    except BudgetError as refusal:
        return Check(name, True, f"refused: {refusal}")
    return Check(name, False, "a budget of no token was accepted")


def _rows(inside: Tensor, start: int, total: int, sequence: int) -> Tensor:
    """Rows of the sequence that stay: all text, and the video tokens `inside`."""
    return torch.cat([torch.arange(start), start + inside, torch.arange(start + total, sequence)])


def _model(stem: str, parameters: dict[str, Any], tensors: dict[str, Tensor]) -> list[Check]:
    """A stock model with the stored weights, prefilled and decoded by our decoder."""
    keep = parameters.get("keep_fraction", 1 - parameters.get("R", 0))
    rows = len(tensors["inputs_embeds"])
    steps = tensors.get("decode_embeds", tensors["inputs_embeds"][:0])  # case 3 has none
    pruned = _run(parameters, tensors, keep, steps)
    whole = _run(parameters, tensors, 1.0, steps)
    kept = _rows(pruned.sequence.flat, parameters["video_start"], parameters["video_tokens"], rows)
    exact = RELEASE if "logits_reference_float64" in tensors else REFERENCE
    count = pruned.sequence.budget
    checks = [
        Check(f"{stem} k", count == parameters["k"], f"{count} tokens, expected {parameters['k']}"),
        close(f"{stem} score", pruned.sequence.memo["score"].double(), tensors["score"], SCORE),
        same(f"{stem} kept", kept, tensors["kept"]),
        same(f"{stem} position_ids", pruned.sequence.positions, tensors.get("position_ids", tensors["kept"])),
        close(f"{stem} logits", pruned.logits[0].to(tensors["logits"].dtype), tensors["logits"], exact),
        close(f"{stem} logits without a cut", whole.logits[0].double(), tensors["logits_unpruned"].double(), exact),
    ]
    all_rows = tensors["logits_kept_rows" if "logits_kept_rows" in tensors else "logits_all_kept"]
    checks.append(close(f"{stem} logits of all kept rows", pruned.rows.to(all_rows.dtype), all_rows, exact))
    if "logits_reference_float64" in tensors:
        reference = tensors["logits_reference_float64"]
        checks.append(close(f"{stem} logits against float64", pruned.logits[0].double(), reference, exact))
    if "cache_lengths_after_prefill" in parameters:
        expected = torch.tensor(parameters["cache_lengths_after_prefill"])
        checks.append(same(f"{stem} cache lengths", torch.tensor(pruned.cached), expected))
        for step, row in enumerate(tensors["decode_logits"]):
            checks.append(close(f"{stem} decode step {step}", pruned.logits[step + 1].double(), row, exact))
    return checks


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    logits: list[Tensor]  # (V,) after the prompt and after each decoded token
    rows: Tensor  # (R, V) of every row that is left
    sequence: Sequence
    cached: list[int]  # rows in each layer's cache after the prompt


def _run(parameters: dict[str, Any], tensors: dict[str, Tensor], keep: float, steps: Tensor) -> _Run:
    model, embeds = _build(parameters, tensors), tensors["inputs_embeds"]
    # The decoder feeds token ids; token i is made to mean row i of the stored embeddings.
    model.model.embed_tokens.weight.data[: len(steps)] = steps
    method = _Noting(layer=parameters["K"], retention=keep)
    sequence = _sequence(embeds, parameters["video_start"], parameters["video_tokens"], method)
    decoder, last = Decoder(model.model, model.lm_head), []
    hook = model.model.layers[-1].register_forward_hook(lambda _module, _inputs, out: last.append(out))
    state = decoder.prefill([sequence])
    hook.remove()
    with torch.inference_mode():
        rows = model.lm_head(model.model.norm(last[0]))[0]
    stored: Any = state.cache.layers
    cached = [layer.keys.shape[2] for layer in stored]
    logits = [state.logits[0]]
    logits += [decoder.decode(state, torch.tensor([step]), step)[0] for step in range(len(steps))]
    return _Run(logits, rows, sequence, cached)


def _sequence(embeds: Tensor, start: int, total: int, method: FastV) -> Sequence:
    """The rows (S, D) as our decoder takes them: `total` video tokens from row `start` on, then the newline."""
    span = slice(start, start + total)
    before, newline, after = embeds[:start], embeds[span.stop : span.stop + 1], embeds[span.stop + 1 :]
    return Sequence(
        embeds=embeds,
        positions=torch.arange(len(embeds)),
        span=span,
        flat=torch.arange(total),
        video=VideoTokens(embeds[span][None], (1, total), before, newline, after, slice(0, 1), "golden"),
        method=method,
        budget=method.budget(total),
        next_position=len(embeds),
    )


def _build(parameters: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    """transformers' own Llama (no q/k/v bias) or Qwen2 (with) with the stored weights."""
    sizes = ("hidden_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers", "intermediate_size")
    common = {name: parameters[name] for name in (*sizes, "vocab_size", "rms_norm_eps")}
    common["rope_parameters"] = {"rope_type": "default", "rope_theta": parameters["rope_theta"]}
    llama = "attention_bias" in parameters
    with torch.random.fork_rng():  # the initial weights are drawn, and then replaced
        model = (
            LlamaForCausalLM(LlamaConfig(**common, attention_bias=parameters["attention_bias"]))
            if llama
            else Qwen2ForCausalLM(Qwen2Config(**common, tie_word_embeddings=parameters["tie_word_embeddings"]))
        )
    model.load_state_dict({n.removeprefix("weight."): t for n, t in tensors.items() if n.startswith("weight.")})
    return model.requires_grad_(False).eval()

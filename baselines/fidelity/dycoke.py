"""DyCoke against the release: frame roles, kept rows in order, and what decoding reads, alone and inside a Qwen2."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from baselines._dycoke_merging import LOST, changed, fill, kept_at, references
from baselines.dycoke import DyCoke, attention_row, look
from baselines.fidelity.checks import Check, cases, close, same
from cacovid.backbones.decoder import Decoder, Prefilled, Sequence
from cacovid.records import VideoTokens
from cacovid.state import DecodeState

SIMILARITY, ATTENTION, LOGITS = 1e-5, 1e-5, 2e-4
"""Largest absolute differences; attention rows are softmax outputs of a float32 model."""


def check(folder: Path) -> list[Check]:
    """All vectors of the folder `dycoke`; the released order is `order="similarity"`."""
    checks: list[Check] = []
    for stem, case, tensors in cases(folder):
        parameters = case["params"]
        if "roles" in parameters:
            checks += _merging(stem, parameters, tensors)
        elif "steps" in parameters:
            checks += _steps(stem, parameters, tensors)
        else:
            checks += _inside(stem, parameters, tensors)
    return checks


# --- TTM --------------------------------------------------------------------------------------------------------


def _merging(stem: str, parameters: dict[str, Any], tensors: dict[str, Tensor]) -> list[Check]:
    checks = []
    for frames, roles in parameters["roles"].items():
        said = [f if role == "full" else _frame(role) for f, role in enumerate(roles)]
        checks.append(same(f"{stem} F={frames} roles", torch.tensor(references(int(frames))), torch.tensor(said)))
    for size, kept in parameters["keep_per_pruned_frame"].items():
        for rate, count in kept.items():
            checks.append(_equal(f"{stem} n={size} K={rate}", kept_at(float(rate), int(size)), count))
    for key, count in parameters["output_rows"].items():
        frames, size = (int(part[1:]) for part in key.split(".")[:2])
        rate = float(key.partition("K")[2])
        video = _video(tensors[f"F{frames}.n{size}.x"].unflatten(0, (frames, size)))
        refs = references(frames)
        by_rate = DyCoke(retention=1 / len(video), accounting="decode", merging_rate=rate, order="similarity")
        by_count = DyCoke(retention=count / len(video), rounding="released", order="similarity")
        ours = {
            "function": changed(video.features, refs, fill(refs, size, [kept_at(rate, size)] * frames), "similarity"),
            "K given": by_rate.compress(video, by_rate.budget(len(video))).position,
            "r given": by_count.compress(video, by_count.budget(len(video))).position,
        }
        checks += [same(f"{stem} {key} kept, {name}", kept, tensors[f"{key}.kept"]) for name, kept in ours.items()]
        checks.append(_equal(f"{stem} {key} rows kept", len(ours["function"]), count))
        if f"{key}.rows" in tensors:
            rows = by_count.compress(video, count).tokens
            checks.append(same(f"{stem} {key} rows", rows, tensors[f"{key}.rows"]))
    return checks


def _frame(role: str) -> int:
    """The frame number in "pruned against frame 2"; LOST for "dropped"."""
    return LOST if role == "dropped" else int(role.rpartition(" ")[2])


def _video(features: Tensor) -> VideoTokens:
    edge = features[0, :1]
    return VideoTokens(features, (1, features.shape[1]), edge, edge, edge, slice(0, 1), "golden")


def _equal(name: str, ours: object, expected: object) -> Check:
    return Check(name, ours == expected, f"{ours}, expected {expected}")


# --- DP ---------------------------------------------------------------------------------------------------------


def _steps(stem: str, parameters: dict[str, Any], tensors: dict[str, Tensor]) -> list[Check]:
    """Given attention rows. The video is the pruned range and the one token after it, which is always read."""
    start, length = parameters["image_token_start_index"], parameters["image_token_length"]
    span = slice(start, start + length + 1)
    checks = []
    for rate, steps in parameters["steps"].items():
        count = kept_at(float(rate), length)
        checks.append(_equal(f"{stem} P={rate} top m", count, parameters["top_m"][rate]))
        memo: dict[str, Any] = {}
        for said in steps:
            name, heads = f"{stem} P={rate} step {said['step']}", tensors[f"attn.step{said['step']}"]
            before, row = memo.get("dycoke_row"), attention_row(heads[:, span])
            keep = look(row, count, memo, "code", parameters["gate_threshold"])
            visible = _visible(keep, span, said["S"])
            checks += [
                _cosine(f"{name} similarity", row, before, said["similarity"]),
                _equal(f"{name} pruned", keep is not None, said["pruned"]),
                _equal(f"{name} count", int(visible.sum()), said["visible"]),
                same(f"{name} visible", visible, tensors[f"P{rate}.step{said['step']}.visible"]),
            ]
    return checks


def _visible(keep: Tensor | None, span: slice, length: int) -> Tensor:
    """Cache positions that are read, bool (S_t,), from the rows of the video tokens that are."""
    out = torch.ones(length, dtype=torch.bool)
    if keep is not None:
        out[span] = False
        out[span.start + keep] = True
    return out


def _cosine(name: str, row: Tensor, before: Tensor | None, expected: float) -> Check:
    ours = torch.zeros(()) if before is None else torch.cosine_similarity(row, before, dim=0)
    return close(name, ours, torch.tensor(expected), SIMILARITY)


@dataclass(frozen=True, kw_only=True)
class _Recorder(DyCoke):
    """DyCoke that writes down what it saw and chose at its layer."""

    heads: list[Tensor] = field(default_factory=list)  # attention over the whole cache, one (H, S_t) a step
    rows: list[Tensor] = field(default_factory=list)
    keeps: list[Tensor | None] = field(default_factory=list)

    def visible(self, layer: int, step: int, state: DecodeState, budget: int) -> Int64[Tensor, " K"] | None:
        keep = super().visible(layer, step, state, budget)
        if layer == self.layer and self.pruning_rate > 0:
            self.heads.append(replace(state, span=lambda _: slice(None)).attention())
            self.rows.append(state.memo["dycoke_row"])
            self.keeps.append(keep)
        return keep


def _inside(stem: str, parameters: dict[str, Any], tensors: dict[str, Tensor]) -> list[Check]:
    """Our own decoder over the stored tiny Qwen2, in float32 with and without DP and in float64."""
    steps, length = len(tensors["decode_embeds"]), parameters["image_token_length"]
    span = slice(parameters["image_token_start_index"], parameters["image_token_start_index"] + length + 1)
    method = _Recorder(retention=0.5, layer=parameters["L"], pruning_rate=parameters["P"])
    logits, state = _run(parameters, tensors, method, span, torch.float32)
    without, _ = _run(parameters, tensors, DyCoke(retention=0.5, pruning_rate=0.0), span, torch.float32)
    double, _ = _run(parameters, tensors, replace(method, heads=[], rows=[], keeps=[]), span, torch.float64)
    checks = [
        close(f"{stem} logits", logits, tensors["logits"], LOGITS),
        close(f"{stem} logits_without_pruning", without, tensors["logits_without_pruning"], LOGITS),
        close(f"{stem} logits_float64", double.float(), tensors["logits_float64"], LOGITS),
        _equal(
            f"{stem} cache_lengths_at_end",
            [layer.keys.shape[2] for layer in state.cache.layers],  # type: ignore[union-attr]
            parameters["cache_lengths_at_end"],
        ),
        _equal(
            f"{stem} decode_positions",
            [state.sequences[0].next_position + step for step in range(steps)],
            parameters["decode_positions"],
        ),
    ]
    for step, (heads, row, keep) in enumerate(zip(method.heads, method.rows, method.keeps, strict=True)):
        stored = tensors[f"step{step}.visible"]
        before = method.rows[step - 1] if step else None
        checks += [
            close(f"{stem} step {step} attn", heads, tensors[f"step{step}.attn"], ATTENTION),
            _cosine(f"{stem} step {step} similarity", row, before, parameters["similarity"][step]),
            _equal(f"{stem} step {step} pruned", keep is not None, parameters["pruned"][step]),
            same(f"{stem} step {step} visible", _visible(keep, span, len(stored)), stored),
        ]
    return checks


def _run(
    parameters: dict[str, Any], tensors: dict[str, Tensor], method: DyCoke, span: slice, dtype: torch.dtype
) -> tuple[Tensor, Prefilled]:
    """Logits (1 + steps, V) of the prompt and of every decode step, through `Decoder`."""
    model = _model(parameters, tensors).to(dtype)
    model.model.embed_tokens = nn.Embedding.from_pretrained(tensors["decode_embeds"].to(dtype))  # token t = step t
    embeds = tensors["prefill_embeds"].to(dtype)
    tokens = span.stop - span.start
    decoder = Decoder(model.model, model.lm_head)
    sequence = Sequence(
        embeds=embeds,
        positions=torch.arange(len(embeds)),
        span=span,
        flat=torch.arange(tokens),
        video=_video(torch.zeros(2, tokens, embeds.shape[1], dtype=dtype)),  # twice as many before TTM: r = 0.5
        method=method,
        budget=tokens,
        next_position=len(embeds),
    )
    state = decoder.prefill([sequence])
    logits = [state.logits]
    logits += [decoder.decode(state, torch.tensor([step]), step) for step in range(len(tensors["decode_embeds"]))]
    return torch.cat(logits), state


def _model(parameters: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    config = Qwen2Config(
        **{name: parameters[name] for name in (*sizes, "vocab_size", "rms_norm_eps", "tie_word_embeddings")},
        rope_parameters={"rope_type": "default", "rope_theta": parameters["rope_theta"]},
    )
    model = Qwen2ForCausalLM(config).eval()
    prefix = "weight."
    model.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    return model

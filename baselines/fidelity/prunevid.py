"""PruneVid against the release: segments, static split, merged rows, scores, kept sets, the pruned prefill."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from baselines._density_peaks import cluster
from baselines._prunevid_plan import MIN_BLOCK, Plan
from baselines._prunevid_split import frame_labels, refine, run_lengths, similarity
from baselines.fidelity.checks import Check, cases, close, same
from baselines.prunevid import PruneVid, merge
from cacovid.backbones.decoder import Decoder, Sequence
from cacovid.flops import DecoderShape
from cacovid.records import VideoTokens
from cacovid.state import PrefillState

ROWS, SCORES, LOGITS, LOGITS_DOUBLE = 1e-4, 1e-5, 2e-4, 1e-4
"""Largest absolute differences; the stored double logits are good to 3e-5."""


def check(folder: Path) -> list[Check]:
    """All vectors of the folder `prunevid`."""
    checks: list[Check] = []
    for stem, case, tensors in cases(folder):
        params = case["params"]
        if "rows" in tensors:
            found = _merging(tensors, params)
        elif "short.labels" in tensors:
            found = _pieces(tensors, params)
        else:
            found = _decoder(tensors, params) if "inputs_embeds" in tensors else _selection(tensors, params)
        checks += [one.of(stem) for one in found]
    return checks


def _merging(t: dict[str, Tensor], params: dict[str, Any]) -> list[Check]:
    """Stage 1, each step from our own step before it."""
    x = t["x"]
    labels = frame_labels(x, params["temporal_segment_ratio"], params["knn"])
    refined = refine(labels.tolist())
    lengths = run_lengths(refined)
    likeness = similarity(x, lengths)
    plan = Plan(lengths, likeness > params["tau"], params["cluster_ratio"])
    merged = merge(x, plan)
    sizes = plan.blocks()
    static, dynamic = [], []
    for frames in lengths:
        static.append(sizes.pop(0))
        dynamic.append(sum(sizes.pop(0) for _ in range(frames)))
    checks = [
        same("frame_labels", labels, t["frame_labels"]),
        same("frame_labels_refined", torch.tensor(refined), t["frame_labels_refined"]),
        same("segment_lengths", torch.tensor(lengths), t["segment_lengths"]),
        close("static_similarity", likeness, t["static_similarity"], SCORES),
        same("static_mask", plan.static, t["static_mask"]),
        same("static_sizes", torch.tensor(static), t["static_sizes"]),
        same("dynamic_sizes", torch.tensor(dynamic), t["dynamic_sizes"]),
        close("rows", merged.tokens, t["rows"], ROWS),
    ]
    found = _block_labels(plan, merged.owner)
    checks += [same(f"cluster{i}.labels", own, t[f"cluster{i}.labels"]) for i, own in enumerate(found)]
    stored = sum(name.endswith(".labels") for name in t)
    return [*checks, Check("clustered blocks", len(found) == stored, f"{len(found)}, expected {stored}")]


def _block_labels(plan: Plan, owner: Tensor) -> list[Tensor]:
    """Row inside its block of each token of each clustered block, in output order."""
    block = plan.block_of_token()
    owner, found, row = owner.view_as(block), [], 0
    for number, size in enumerate(plan.blocks()):
        frames = (block == number).any(1).nonzero().squeeze(1)
        if size and int((inside := block[frames[0]] == number).sum()) > MIN_BLOCK:
            found.append(owner[frames[0], inside] - row)  # a static block looks the same in all its frames
        row += size
    return found


def _pieces(t: dict[str, Tensor], params: dict[str, Any]) -> list[Check]:
    """Refinement and clustering on inputs of hand size."""
    checks = []
    for name in ("short", "long"):
        refined = [refine(labels) for labels in t[f"{name}.labels"].tolist()]
        lengths = torch.zeros_like(t[f"{name}.lengths"])
        for row, labels in zip(lengths, refined, strict=True):
            runs = run_lengths(labels)
            row[: len(runs)] = torch.tensor(runs)
        checks.append(same(f"{name}.refined", torch.tensor(refined), t[f"{name}.refined"]))
        checks.append(same(f"{name}.lengths", lengths, t[f"{name}.lengths"]))
    for name, setting in params.items():
        ours = cluster(t[f"{name}.x"], setting["clusters"], setting["k"]).labels
        checks.append(same(f"{name}.labels", ours, t[f"{name}.labels"]))
    return checks


@dataclass(frozen=True, slots=True, eq=False)
class _GivenBlocks(Plan):
    """Blocks of the stored sizes, whatever the video."""

    sizes: tuple[int, ...]

    def blocks(self) -> list[int]:
        return list(self.sizes)

    def rows(self, beta: float | None = None) -> int:
        return sum(self.sizes)

    def block_of_token(self) -> Tensor:
        return torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes))[None]


@dataclass(frozen=True, kw_only=True)
class _Selection(PruneVid):
    """The method's second stage on given blocks, with its scores noted. The vectors have no newline token."""

    sizes: tuple[int, ...]

    def plan(self, video: VideoTokens, budget: int) -> Plan:
        return _GivenBlocks([], torch.empty(0, 0, dtype=torch.bool), 1.0, self.sizes)

    def question_scores(self, state: PrefillState) -> Tensor:
        state.memo["scores"] = super().question_scores(state)
        return state.memo["scores"]


def _method(params: dict[str, Any], alpha: float, layer: int) -> _Selection:
    sizes: list[int] = []
    for static, dynamic, frames in zip(
        params["static_sizes"], params["dynamic_sizes"], params["window_sizes"], strict=True
    ):
        sizes += [static] + [dynamic // frames] * frames
    return _Selection(knobs="paper", retention=0.5, alpha=alpha, layer=layer, newline_asks=True, sizes=tuple(sizes))


def _video(tokens: int, width: int) -> VideoTokens:
    """As many tokens as the stored span has; nothing looks at them."""
    row = torch.zeros(1, width)
    return VideoTokens(torch.zeros(1, tokens, width), (1, tokens), row, row, row, slice(0, 1), "clip")


def _selection(t: dict[str, Tensor], params: dict[str, Any]) -> list[Check]:
    """Stage 2 on stored queries and keys: a layer whose projections return them."""
    heads, rows, width = t["q"].shape
    span = slice(params["video_start"], params["video_start"] + params["video_tokens"])
    attention = SimpleNamespace(
        q_proj=lambda index: t["q"].transpose(0, 1).flatten(1)[index[:, 0].long()],
        k_proj=lambda index: t["k"].transpose(0, 1).flatten(1)[index[:, 0].long()],
        head_dim=width,
        num_key_value_groups=1,
        scaling=width**-0.5,
    )
    inputs = torch.arange(rows, dtype=torch.float32)[:, None]
    layer = SimpleNamespace(self_attn=attention, input_layernorm=lambda hidden: hidden)
    checks = []
    for alpha in params["alphas"]:
        state = PrefillState(
            video=_video(params["video_tokens"], 1),
            layer=1,
            layers=[layer] * 2,
            inputs={0: inputs, 1: inputs},
            current=inputs,
            positions=torch.arange(rows),
            span=span,
            flat=torch.arange(params["video_tokens"]),
            rotary=lambda positions: (torch.ones(len(positions), width), torch.zeros(len(positions), width)),
            shape=DecoderShape(2, heads * width, heads, heads, width, 1, 1),
            lookups=[],
        )
        cut = _method(params, alpha, layer=0).prune_layer(1, state, 1)
        assert cut is not None and cut.evict
        kept = torch.cat([torch.arange(span.start), span.start + cut.keep, torch.arange(span.stop, rows)])
        checks.append(same(f"alpha{alpha}.kept", kept, t[f"alpha{alpha}.kept"]))
    return [close("scores", state.memo["scores"], t["scores"], SCORES), *checks]


def _decoder(t: dict[str, Tensor], params: dict[str, Any]) -> list[Check]:
    """Stage 2 inside a model, through our decoder."""
    keys = ("hidden_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers")
    more = ("intermediate_size", "vocab_size", "rms_norm_eps", "attention_bias")
    rope = {"rope_type": "default", "rope_theta": params["rope_theta"]}
    config = LlamaConfig(**{key: params[key] for key in keys + more}, rope_parameters=rope)
    config._attn_implementation = "sdpa"
    model = LlamaForCausalLM(config).eval()
    weights = {name.removeprefix("weight."): value for name, value in t.items() if name.startswith("weight.")}
    model.load_state_dict(weights)
    checks = []
    for name, tolerance in (("logits", LOGITS), ("logits_float64", LOGITS_DOUBLE)):
        dtype = torch.float64 if name == "logits_float64" else torch.float32
        sequence, logits, following, lengths = _prefill(model.to(dtype), t["inputs_embeds"].to(dtype), params)
        checks.append(close(name, logits.float(), t[name], tolerance))
        checks.append(close(f"{name}, next token", following.float(), t[name][-1], tolerance))
        checks.append(same(f"kept, {dtype}", sequence.positions, t["kept"]))
        checks.append(close(f"scores, {dtype}", sequence.memo["scores"], t["scores"], SCORES))
        checks.append(same(f"cache lengths, {dtype}", torch.tensor(lengths), torch.tensor(params["cache_lengths"])))
    return checks


def _prefill(model: Any, embeds: Tensor, params: dict[str, Any]) -> tuple[Sequence, Tensor, Tensor, list[int]]:
    """Our pruned prefill: the sequence as it is left, logits of its rows and of the next token, cache lengths."""
    tokens, start = params["video_tokens"], params["video_start"]
    sequence = Sequence(
        embeds=embeds,
        positions=torch.arange(len(embeds)),
        span=slice(start, start + tokens),
        flat=torch.arange(tokens),
        video=_video(tokens, embeds.shape[1]),
        method=_method(params, params["alpha"], params["selected_layer"]),
        budget=1,
        next_position=len(embeds),
    )
    last: list[Tensor] = []
    handle = model.model.layers[-1].register_forward_hook(lambda _module, _inputs, output: last.append(output))
    try:
        filled = Decoder(model.model, model.lm_head).prefill([sequence])
    finally:
        handle.remove()
    with torch.inference_mode():
        logits = model.lm_head(model.model.norm(last[0]))[0]
    lengths = [layer.keys.shape[2] for layer in filled.cache.layers]  # type: ignore[union-attr]
    return sequence, logits, filled.logits[0], lengths

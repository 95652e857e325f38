"""The stock decoder, run layer by layer so that a method's hooks can act between layers.

Nothing of the model is replaced or patched: the layers, norm, rotary tables and masks are transformers' own.
Traps that this file exists for:
- layers get (cos, sin) and no `position_ids`: FlashAttention in transformers v5 takes gapped position ids at
  batch 1 for packed sequences and silently splits the attention;
- in-LLM pruning leaves the cache with another length in each layer: decode masks are made per layer;
- eager attention applies no causal mask of its own when it is given none.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.masking_utils import create_causal_mask

from cacovid.attention import rotary_tables
from cacovid.errors import MethodError
from cacovid.flops import DecoderShape
from cacovid.method import Method
from cacovid.records import LayerCut, VideoTokens
from cacovid.state import DecodeState, PrefillState


@dataclass(slots=True, eq=False)
class Sequence:
    """One sample inside the LLM: which rows hold which video tokens, and at which positions. L rows."""

    embeds: Float[Tensor, "L D"]
    positions: Int64[Tensor, "L ..."]  # position ids: one a row, or (time, height, width) under M-RoPE
    span: slice  # rows that hold video tokens
    flat: Int64[Tensor, " K"]  # flat position that each of them stands for
    video: VideoTokens
    method: Method
    budget: int
    next_position: int  # position id of the first decoded token
    memo: dict[str, Any] = field(default_factory=dict)
    lookups: list[int] = field(default_factory=list)  # FLOPs of the method's look-ups into attention

    @property
    def rows(self) -> int:
        return self.positions.shape[0]


@dataclass(slots=True, eq=False)
class LayerLayout:
    """What one layer computed, and what its cache holds: sample by sample, right-aligned in rows of the longest."""

    rows: list[int]
    spans: list[slice]  # video tokens in the cache, counted from the sample's own first row
    valid: Bool[Tensor, "B L"] | None  # None = no padding
    computed: list[int]  # video tokens in its attention at prefill: an eviction does not undo what was computed
    fed: list[int]  # video tokens in its feed-forward part

    def video_tokens(self, sample: int) -> int:
        """Video tokens in this layer's cache."""
        return _length(self.spans[sample])


@dataclass(slots=True, eq=False)
class Prefilled:
    """The LLM after the prompt: next-token logits, cache, and what is where in it."""

    logits: Float[Tensor, "B V"]
    cache: DynamicCache
    layouts: list[LayerLayout]
    sequences: list[Sequence]
    visible: list[list[list[int]]] = field(default_factory=list)  # [step][layer][sample] video KV entries read


def pad_left(rows: list[Tensor]) -> tuple[Tensor, Bool[Tensor, "B L"] | None]:
    """Stack rows of unequal length, right-aligned; the mask is None where nothing had to be padded."""
    lengths = [r.shape[0] for r in rows]
    longest = max(lengths)
    if min(lengths) == longest:
        return torch.stack(rows), None
    out = rows[0].new_zeros(len(rows), longest, *rows[0].shape[1:])
    valid = torch.zeros(len(rows), longest, dtype=torch.bool, device=rows[0].device)
    for i, row in enumerate(rows):
        out[i, longest - lengths[i] :] = row
        valid[i, longest - lengths[i] :] = True
    return out, valid


class Decoder:
    """Prefill and single decode steps of a stock Llama-like decoder (Qwen2 and its relatives)."""

    def __init__(self, model: Any, lm_head: Any) -> None:
        self.model, self.lm_head, self.config = model, lm_head, model.config
        self.layers: Any = model.layers
        self.shape = DecoderShape.from_config(self.config)

    def rotary(self, positions: Int64[Tensor, "L ..."]) -> tuple[Float[Tensor, "L d"], Float[Tensor, "L d"]]:
        """Rotary tables (cos, sin) at `positions`, in the model's dtype."""
        cos, sin = rotary_tables(self.model.rotary_emb, self.lm_head.weight[:1], positions[None])
        return cos[0], sin[0]

    @torch.inference_mode()
    def prefill(self, sequences: list[Sequence]) -> Prefilled:
        """Run the prompt through all layers, calling the methods' in-LLM hooks before and inside each of them."""
        cutting = [s.method for s in sequences if "in-LLM" in s.method.stages]
        before = any(method.acts("prune_layer") for method in cutting)
        inside = any(method.acts("prune_after_attention") for method in cutting)
        cache = DynamicCache(config=self.config)
        layouts: list[LayerLayout] = []
        hidden, valid, mask, rotary = self._arrange(sequences, [s.embeds for s in sequences])
        previous: Tensor | None = None
        for index, layer in enumerate(self.layers):
            if before:
                inputs = {index: hidden} if previous is None else {index - 1: previous, index: hidden}
                cuts = self._ask("prune_layer", sequences, index, inputs, hidden)
                hidden, valid, mask, rotary = self._cut(cuts, sequences, hidden, valid, mask, rotary, layouts, cache)
                previous = hidden
            here = [_length(s.span) for s in sequences]
            layouts.append(LayerLayout([s.rows for s in sequences], [s.span for s in sequences], valid, here, here))
            call = {
                "attention_mask": mask,
                "position_embeddings": rotary,
                "past_key_values": cache,
                "use_cache": True,
            }
            if not inside:
                hidden = layer(hidden, **call)
                continue
            # The stock layer in its two halves, so that a cut fits between them.
            middle = hidden + layer.self_attn(hidden_states=layer.input_layernorm(hidden), **call)[0]
            cuts = self._ask("prune_after_attention", sequences, index, {index: hidden}, middle)
            middle, valid, mask, rotary = self._cut(cuts, sequences, middle, valid, mask, rotary, layouts, cache)
            layouts[-1].fed = [_length(s.span) for s in sequences]
            hidden = middle + layer.mlp(layer.post_attention_layernorm(middle))
            previous = None  # its rows are no longer those of the input
        logits = self.lm_head(self.model.norm(hidden[:, -1:]))[:, -1]
        return Prefilled(logits, cache, layouts, sequences)

    @torch.inference_mode()
    def decode(self, state: Prefilled, tokens: Int64[Tensor, " B"], step: int) -> Float[Tensor, "B V"]:
        """Feed one decoded token a sample and return the logits of the next; `step` counts from 0."""
        hides = any("decode" in s.method.stages for s in state.sequences)
        hidden = self.model.embed_tokens(tokens[:, None])
        device = hidden.device
        positions = torch.tensor([[s.next_position + step] for s in state.sequences], device=device)
        rotary = rotary_tables(self.model.rotary_emb, hidden, positions)
        inputs: dict[int, Tensor] = {}
        read: list[list[int]] = []
        for index, layer in enumerate(self.layers):
            layout = state.layouts[index]
            valid = layout.valid
            if valid is not None:
                valid = nn.functional.pad(valid, (0, step + 1), value=True)
            counts = [layout.video_tokens(i) for i in range(len(state.sequences))]
            if hides:
                inputs = {k: v for k, v in inputs.items() if k == index - 1} | {index: hidden}
                valid, counts = self._hide(state, index, step, inputs, positions, valid, counts)
            read.append(counts)
            hidden = layer(
                hidden,
                attention_mask=self._key_mask(valid, hidden.dtype),
                position_embeddings=rotary,
                past_key_values=state.cache,
                use_cache=True,
            )
        state.visible.append(read)
        return self.lm_head(self.model.norm(hidden))[:, -1]

    def _arrange(self, sequences: list[Sequence], rows: list[Tensor]) -> tuple[Tensor, Any, Any, Any]:
        """Pad the samples' hidden rows into a batch, with the causal mask and rotary tables that fit them."""
        hidden, valid = pad_left(rows)
        positions, _ = pad_left([s.positions for s in sequences])
        mask = create_causal_mask(config=self.config, inputs_embeds=hidden, attention_mask=valid, past_key_values=None)
        return hidden, valid, mask, rotary_tables(self.model.rotary_emb, hidden, positions)

    def _ask(
        self, hook: str, sequences: list[Sequence], layer: int, inputs: dict[int, Tensor], current: Tensor
    ) -> list[LayerCut | None]:
        """What the methods want cut of every sample; None where nothing changes."""
        cuts: list[LayerCut | None] = []
        for i, sequence in enumerate(sequences):
            state = PrefillState(
                video=sequence.video,
                layer=layer,
                layers=self.layers,
                inputs={k: _own(v, i, sequence) for k, v in inputs.items()},
                current=_own(current, i, sequence),
                positions=sequence.positions,
                span=sequence.span,
                flat=sequence.flat,
                rotary=self.rotary,
                shape=self.shape,
                lookups=sequence.lookups,
                memo=sequence.memo,
            )
            cut = getattr(sequence.method, hook)(layer, state, sequence.budget)
            unchanged = cut is None or (cut.hidden is None and len(cut.keep) == len(sequence.flat))
            cuts.append(None if unchanged else cut)
        return cuts

    def _cut(
        self,
        cuts: list[LayerCut | None],
        sequences: list[Sequence],
        hidden: Tensor,
        valid: Tensor | None,
        mask: Any,
        rotary: Any,
        layouts: list[LayerLayout],
        cache: DynamicCache,
    ) -> tuple[Tensor, Any, Any, Any]:
        """Apply the cuts: hidden rows, padding, mask and rotary tables as they are from here on."""
        if not any(cuts):
            return hidden, valid, mask, rotary
        before = [s.rows for s in sequences]
        rows: list[Tensor] = []
        kept: list[Tensor | None] = []  # rows of the sample's cache that an eviction leaves
        for i, (cut, sequence) in enumerate(zip(cuts, sequences, strict=True)):
            own = _own(hidden, i, sequence)
            if cut is None:
                rows.append(own)
                kept.append(None)
                continue
            index = _rows_left(cut, sequence)
            kept.append(index if cut.evict else None)
            rows.append(_apply(cut, sequence, own, index))
        if any(index is not None for index in kept):
            _evict(kept, before, sequences, layouts, cache)
        return self._arrange(sequences, rows)

    def _hide(
        self,
        state: Prefilled,
        layer: int,
        step: int,
        inputs: dict[int, Tensor],
        positions: Tensor,
        valid: Tensor | None,
        counts: list[int],
    ) -> tuple[Tensor | None, list[int]]:
        """Ask the method which cached video tokens this layer may read; the key mask with the others off."""
        for i, sequence in enumerate(state.sequences):

            def span(index: int, sample: int = i) -> slice:
                return state.layouts[index].spans[sample]

            def keys(index: int, sample: int = i) -> Tensor:
                rows = state.layouts[index].rows[sample] + step + 1
                layer_cache: Any = state.cache.layers[index]
                return layer_cache.keys[sample, :, -rows:]

            view = DecodeState(
                video=sequence.video,
                layer=layer,
                layers=self.layers,
                inputs={k: v[i, 0] for k, v in inputs.items()},
                position=positions[i],
                keys=keys,
                span=span,
                rotary=self.rotary,
                shape=self.shape,
                lookups=sequence.lookups,
                memo=sequence.memo,
            )
            keep = sequence.method.visible(layer, step, view, sequence.budget)
            if keep is None or len(keep) == counts[i]:
                continue
            layout = state.layouts[layer]
            width = max(layout.rows) + step + 1
            if valid is None:
                valid = torch.ones(len(state.sequences), width, dtype=torch.bool, device=positions.device)
            start = width - (layout.rows[i] + step + 1) + layout.spans[i].start
            valid[i, start : start + counts[i]] = False
            valid[i, start + keep] = True
            counts[i] = len(keep)
        return valid, counts

    def _key_mask(self, valid: Bool[Tensor, "B L"] | None, dtype: torch.dtype) -> Tensor | None:
        """Mask of one query row over the keys, in the form that the attention backend takes."""
        backend = self.config._attn_implementation
        if valid is None or backend.startswith("flash"):
            return valid
        if backend == "eager":
            return torch.zeros(valid.shape, dtype=dtype, device=valid.device).masked_fill(
                ~valid, torch.finfo(dtype).min
            )[:, None, None]
        return valid[:, None, None]


def _length(span: slice) -> int:
    return span.stop - span.start


def _own(batch: Tensor, sample: int, sequence: Sequence) -> Tensor:
    """A sample's rows without the padding."""
    return batch[sample, batch.shape[1] - sequence.rows :]


def _rows_left(cut: LayerCut, sequence: Sequence) -> Int64[Tensor, " R"]:
    """The sequence's rows that stay, text among them. Raises MethodError for a cut that makes no sense."""
    keep, span = cut.keep, sequence.span
    if len(keep) == 0 or not bool((keep.diff() > 0).all() & (keep[0] >= 0) & (keep[-1] < len(sequence.flat))):
        raise MethodError(
            f"{type(sequence.method).__name__} must keep at least one of the {len(sequence.flat)} current "
            f"video tokens in the LLM, as rising row numbers; got {keep.tolist()[:8]}"
        )
    before = torch.arange(span.start, device=keep.device)
    after = torch.arange(span.stop, sequence.rows, device=keep.device)
    return torch.cat([before, span.start + keep, after])


def _apply(cut: LayerCut, sequence: Sequence, hidden: Tensor, rows: Tensor) -> Tensor:
    """Cut the sequence's book-keeping to `rows` and return its hidden rows."""
    hidden = hidden[rows]
    sequence.span = slice(sequence.span.start, sequence.span.start + len(cut.keep))
    sequence.positions = sequence.positions[rows]
    sequence.flat = sequence.flat[cut.keep]
    if cut.hidden is not None:
        hidden = torch.cat([hidden[: sequence.span.start], cut.hidden, hidden[sequence.span.stop :]])
    return hidden


def _evict(
    kept: list[Tensor | None], before: list[int], sequences: list[Sequence], layouts: list[LayerLayout], cache: Any
) -> None:
    """Leave only the rows `kept` in the caches of all layers so far; None = all of a sample's rows.

    Raises MethodError where a layer held other rows than the `before` ones of the cut: tokens were cut earlier.
    """
    for layout, stored in zip(layouts, cache.layers[: len(layouts)], strict=True):
        keys, values = [], []
        for i, index in enumerate(kept):
            rows = layout.rows[i]
            every = torch.arange(rows, device=stored.keys.device) if index is None else index
            if index is not None and rows != before[i]:
                raise MethodError(
                    f"{type(sequences[i].method).__name__} evicts {before[i] - len(index)} of {before[i]} rows, but an "
                    f"earlier layer holds {rows}; evict with the first cut"
                )
            # (h, L, d) -> (L, h, d): the axis that is padded comes first
            own_keys, own_values = (part[i, :, -rows:].transpose(0, 1) for part in (stored.keys, stored.values))
            keys.append(own_keys[every])
            values.append(own_values[every])
            if index is not None:
                layout.rows[i], layout.spans[i] = len(index), sequences[i].span
        padded, layout.valid = pad_left(keys)
        stored.keys, stored.values = padded.transpose(1, 2), pad_left(values)[0].transpose(1, 2)

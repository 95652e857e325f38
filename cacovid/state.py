"""What the in-LLM and decode hooks may look at: one sample, unpadded, with exact look-ups into attention."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cacovid.attention import cached_row, decoder_rows
from cacovid.flops import DecoderShape
from cacovid.records import VideoTokens

Rotary = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(slots=True, eq=False)
class PrefillState:
    """One sample at prefill, at a point where tokens may be cut. Rows L = text, video, newline.

    In `prune_layer` that is just before decoder layer `layer` runs, in `prune_after_attention` inside it, between
    the attention's residual and the feed-forward part.
    """

    video: VideoTokens
    layer: int
    layers: Any  # the decoder's layers
    inputs: dict[int, Float[Tensor, "L D"]]  # inputs of `layer` and, from the second layer on, of the one before
    current: Float[Tensor, "L D"]  # the rows that a cut cuts
    positions: Int64[Tensor, "L ..."]  # position ids: one a row, or (time, height, width) under M-RoPE
    span: slice  # rows that hold the video tokens still there
    flat: Int64[Tensor, " K"]  # flat position that each of them stands for
    rotary: Callable[[Tensor], tuple[Tensor, Tensor]]  # positions -> (cos, sin), each (L, d)
    shape: DecoderShape
    lookups: list[int]  # FLOPs of every look-up of this sample so far: look-ups count themselves
    memo: dict[str, Any] = field(default_factory=dict)  # the method's own notes; fresh for every generation

    @property
    def hidden(self) -> Float[Tensor, "K D"]:
        """Hidden states of the video tokens where the cut is made."""
        return self.current[self.span]

    @property
    def last_row(self) -> Int64[Tensor, "1"]:
        """The last prompt row: with a chat template the newline after "assistant", not a question word."""
        rows = self.positions.shape[0]
        return torch.tensor([rows - 1], device=self.positions.device)

    @property
    def rows_after_video(self) -> Int64[Tensor, " C"]:
        """Every text row after the last visual slot (the newline token is a visual slot)."""
        first = self.span.stop + len(self.video.newline)
        return torch.arange(first, self.positions.shape[0], device=self.positions.device)

    def attention(
        self,
        rows: Int64[Tensor, " Q"],
        *,
        layer: int | None = None,
        rope: bool = True,
        causal: bool = True,
        over_video: bool = False,
    ) -> Float[Tensor, "Q H K"]:
        """Attention of the query `rows` to the current video tokens, float32, each head apart.

        Args:
            layer: `self.layer - 1` (the default: the last layer that ran) or `self.layer` (its own
                projections on its input, one layer later, as PyramidDrop scores).
            rope: False = before rotary embedding.
            causal: False = over the keys behind a row, too.
            over_video: softmax over the video columns alone instead of over every visible key.

        Raises ValueError for a layer whose input is not at hand.
        """
        layer = self.layer - 1 if layer is None else layer
        if layer not in self.inputs:
            raise ValueError(
                f"attention of layer {layer} was asked for before layer {self.layer}; at hand: "
                f"{sorted(self.inputs)}. Score with the last layer that ran or with the next one"
            )
        cos, sin = self.rotary(self.positions)
        columns = self.span if over_video else None
        self.lookups.append(self.shape.attention_rows(len(rows), len(self.positions)))
        weights = decoder_rows(
            self.layers[layer], self.inputs[layer], cos, sin, rows, rope=rope, causal=causal, columns=columns
        )
        return weights if over_video else weights[..., self.span]


@dataclass(slots=True, eq=False)
class DecodeState:
    """One sample at a decode step, just before decoder layer `layer` runs on the one new token."""

    video: VideoTokens
    layer: int
    layers: Any
    inputs: dict[int, Float[Tensor, " D"]]  # inputs of `layer` and of the one before, for the new token
    position: Int64[Tensor, "1"]
    keys: Callable[[int], Float[Tensor, "h L d"]]  # cached keys of a layer that already ran, new token included
    span: Callable[[int], slice]  # rows of a layer's cache that hold video tokens
    rotary: Callable[[Tensor], tuple[Tensor, Tensor]]
    shape: DecoderShape
    lookups: list[int]  # FLOPs of every look-up of this sample so far
    memo: dict[str, Any] = field(default_factory=dict)

    def attention(self) -> Float[Tensor, "H K"]:
        """Attention of the new token to the cached video tokens in the last layer that ran, float32.

        The softmax is over the whole cache of that layer; the columns returned are its video tokens.
        """
        layer = self.layer - 1
        if layer not in self.inputs:
            raise ValueError("the first layer has no layer before it to read attention from; use layer >= 1")
        cos, sin = self.rotary(self.position)
        keys = self.keys(layer)
        self.lookups.append(self.shape.cached_row(keys.shape[1]))
        row = cached_row(self.layers[layer], self.inputs[layer], cos[0], sin[0], keys)
        return row[:, self.span(layer)]

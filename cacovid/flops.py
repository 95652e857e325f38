"""Floating-point operations from the real architecture: grouped queries, SwiGLU, vision tower, projector.

One multiply-add counts 2. Matrix products only (norms, softmax and rotary embeddings are below 1%), attention
as the full queries x keys rectangle: kernels that skip the causal half do less, and papers do not subtract it.
"""

from dataclasses import dataclass
from typing import Any

from cacovid.budget import Flops


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """Sizes of a Llama-like decoder (RMSNorm, grouped-query attention, SwiGLU)."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    vocabulary: int

    @classmethod
    def from_config(cls, text: Any) -> "DecoderShape":
        """From a transformers text config (Qwen2 and its like)."""
        return cls(
            layers=text.num_hidden_layers,
            width=text.hidden_size,
            heads=text.num_attention_heads,
            kv_heads=text.num_key_value_heads,
            head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
            feed_forward=text.intermediate_size,
            vocabulary=text.vocab_size,
        )

    def layer(self, queries: int, keys: int, fed: int | None = None) -> int:
        """One decoder layer over `queries` new rows that attend to `keys` rows (new ones included).

        `fed` rows go through the feed-forward part: fewer where tokens were cut after the attention.
        """
        q_width, kv_width = self.heads * self.head_dim, self.kv_heads * self.head_dim
        projections = self.width * (2 * q_width + 2 * kv_width)  # q, o and k, v
        attention = 2 * keys * q_width  # q k^T and p v
        swiglu = 3 * self.width * self.feed_forward
        return 2 * (queries * (projections + attention) + (queries if fed is None else fed) * swiglu)

    def attention_rows(self, queries: int, keys: int) -> int:
        """An exact look-up of `queries` attention rows: their queries, the keys of all rows, the products."""
        q_width, kv_width = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return 2 * (self.width * (queries * q_width + keys * kv_width) + queries * keys * q_width)

    def cached_row(self, keys: int) -> int:
        """A look-up of one decoded token's attention over `keys` cached rows."""
        q_width = self.heads * self.head_dim
        return 2 * (self.width * q_width + keys * q_width)

    def head(self, rows: int = 1) -> int:
        return 2 * rows * self.width * self.vocabulary

    def prefill(self, rows: list[int], fed: list[int] | None = None) -> int:
        """Prefill with `rows[l]` rows in layer l (`fed[l]` in its feed-forward part), and the LM head on the last."""
        return sum(self.layer(n, n, m) for n, m in zip(rows, fed or rows, strict=True)) + self.head()

    def decode(self, keys: list[list[int]]) -> int:
        """Decode steps after the first token; `keys[t][l]` rows are read by layer l at step t."""
        return sum(sum(self.layer(1, n) for n in step) + self.head() for step in keys)


@dataclass(frozen=True, slots=True)
class VisionShape:
    """Sizes of a SigLIP-like tower and the two-layer projector behind it."""

    layers: int
    width: int
    feed_forward: int
    patches: int  # tokens a frame inside the tower, before pooling
    patch_inputs: int  # channels * patch size ** 2
    llm_width: int

    @classmethod
    def from_config(cls, config: Any) -> "VisionShape":
        """From a LLaVA-OneVision config. The tower runs all its layers, whichever one the features come from."""
        vision = config.vision_config
        return cls(
            layers=vision.num_hidden_layers,
            width=vision.hidden_size,
            feed_forward=vision.intermediate_size,
            patches=(vision.image_size // vision.patch_size) ** 2,
            patch_inputs=vision.num_channels * vision.patch_size**2,
            llm_width=config.text_config.hidden_size,
        )

    def video(self, frames: int) -> int:
        p, d = self.patches, self.width
        embed = p * self.patch_inputs * d
        layer = p * (4 * d * d + 2 * p * d + 2 * d * self.feed_forward)
        projector = p * (d * self.llm_width + self.llm_width**2)
        return 2 * frames * (embed + self.layers * layer + projector)

    def received_attention(self, frames: int) -> int:
        """q k^T of one tower layer once more; its q and k are those that the tower computed anyway."""
        return 2 * frames * self.patches**2 * self.width


def sample_flops(
    vision: VisionShape,
    decoder: DecoderShape,
    *,
    frames: int,
    compressor: int,
    prefill_rows: list[int],
    decode_keys: list[list[int]],
    fed_rows: list[int] | None = None,
) -> Flops:
    """FLOPs of one sample: `prefill_rows[l]` rows in layer l, `decode_keys[t][l]` keys read at step t.

    `fed_rows[l]` go through the feed-forward part of layer l, all of its rows by default.
    """
    return Flops(
        vision=vision.video(frames),
        compressor=compressor,
        prefill=decoder.prefill(prefill_rows, fed_rows),
        decode=decoder.decode(decode_keys),
    )

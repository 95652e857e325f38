"""Floating-point operations from the real architecture: grouped queries, SwiGLU, vision tower, projector.

One multiply-add counts 2. Matrix products only (norms, softmax and rotary embeddings are below 1%), attention
as the full queries x keys rectangle: kernels that skip the causal half do less, and papers do not subtract it.
"""

from dataclasses import dataclass
from typing import Any, Protocol

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


class VisionShape(Protocol):
    """Sizes of a vision tower and its projector. `frames` and `grid` (H, W) are those of `VideoTokens`."""

    @property
    def llm_width(self) -> int:
        """Width of what comes out."""

    def video(self, frames: int, grid: tuple[int, int]) -> int:
        """From pixels to video tokens."""

    def received_attention(self, frames: int, grid: tuple[int, int]) -> int:
        """q k^T of one tower layer once more; its q and k are those that the tower computed anyway."""


@dataclass(frozen=True, slots=True)
class SiglipShape:
    """Sizes of a SigLIP-like tower and the two-layer projector behind it."""

    layers: int
    width: int
    feed_forward: int
    patches: int  # tokens a frame inside the tower, before pooling
    patch_inputs: int  # channels * patch size ** 2
    llm_width: int

    @classmethod
    def from_config(cls, config: Any) -> "SiglipShape":
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

    def video(self, frames: int, grid: tuple[int, int]) -> int:
        """Every frame is squashed to the tower's own size, whatever its grid."""
        p, d = self.patches, self.width
        embed = p * self.patch_inputs * d
        layer = p * (4 * d * d + 2 * p * d + 2 * d * self.feed_forward)
        projector = p * (d * self.llm_width + self.llm_width**2)
        return 2 * frames * (embed + self.layers * layer + projector)

    def received_attention(self, frames: int, grid: tuple[int, int]) -> int:
        return 2 * frames * self.patches**2 * self.width


@dataclass(frozen=True, slots=True)
class WindowedShape:
    """Sizes of Qwen2.5-VL's tower: windows in most layers, SwiGLU, and a merger of `merge`^2 patches into a token."""

    layers: int
    full_layers: int  # of them, with attention over the whole frame
    width: int
    feed_forward: int
    window: int  # side of a window, in tokens
    merge: int
    patch_inputs: int  # channels * frames a token * patch size ** 2
    llm_width: int

    @classmethod
    def from_config(cls, config: Any) -> "WindowedShape":
        """From a Qwen2.5-VL config."""
        vision = config.vision_config
        return cls(
            layers=vision.depth,
            full_layers=len(vision.fullatt_block_indexes),
            width=vision.hidden_size,
            feed_forward=vision.intermediate_size,
            window=vision.window_size // vision.spatial_merge_size // vision.patch_size,
            merge=vision.spatial_merge_size,
            patch_inputs=vision.in_channels * vision.temporal_patch_size * vision.patch_size**2,
            llm_width=vision.out_hidden_size,
        )

    def _patches(self, grid: tuple[int, int]) -> int:
        return grid[0] * grid[1] * self.merge**2

    def _pairs_in_windows(self, grid: tuple[int, int]) -> int:
        heights, widths = ([min(self.window, side - i) for i in range(0, side, self.window)] for side in grid)
        return sum(self._patches((h, w)) ** 2 for h in heights for w in widths)

    def video(self, frames: int, grid: tuple[int, int]) -> int:
        p, d = self._patches(grid), self.width
        embed = p * self.patch_inputs * d
        linear = self.layers * p * (4 * d * d + 3 * d * self.feed_forward)
        pairs = self.full_layers * p**2 + (self.layers - self.full_layers) * self._pairs_in_windows(grid)
        merged = self.merge**2 * d  # inputs of the merger
        merger = grid[0] * grid[1] * (merged**2 + merged * self.llm_width)
        return 2 * frames * (embed + linear + 2 * pairs * d + merger)

    def received_attention(self, frames: int, grid: tuple[int, int]) -> int:
        return 2 * frames * self._patches(grid) ** 2 * self.width


def sample_flops(
    decoder: DecoderShape,
    *,
    vision: int,
    compressor: int,
    prefill_rows: list[int],
    decode_keys: list[list[int]],
    fed_rows: list[int] | None = None,
) -> Flops:
    """FLOPs of one sample: `prefill_rows[l]` rows in layer l, `decode_keys[t][l]` keys read at step t.

    `vision` and `compressor` are FLOPs; `fed_rows[l]` go through the feed-forward part of layer l, all of its rows by
    default.
    """
    return Flops(
        vision=vision,
        compressor=compressor,
        prefill=decoder.prefill(prefill_rows, fed_rows),
        decode=decoder.decode(decode_keys),
    )

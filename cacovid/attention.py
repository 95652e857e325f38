"""Exact attention look-ups: a few rows of one layer, never the whole matrix, so sdpa and flash stay on."""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformers.models.qwen2.modeling_qwen2 import rotate_half


def rotate(x: Float[Tensor, "h L d"], cos: Float[Tensor, "L d"], sin: Float[Tensor, "L d"]) -> Float[Tensor, "h L d"]:
    """Rotary position embedding of one tensor, as the decoder layers of the Qwen2 family apply it."""
    return x * cos + rotate_half(x) * sin


def rotary_tables(
    rotary: Any, like: Tensor, positions: Int64[Tensor, "B L ..."]
) -> tuple[Float[Tensor, "B L d"], Float[Tensor, "B L d"]]:
    """(cos, sin) of a stock rotary embedding in the dtype of `like`; M-RoPE takes its axes first."""
    return rotary(like, positions.permute(2, 0, 1) if positions.ndim == 3 else positions)


def heads_of(linear: Any, x: Float[Tensor, "L D"], head_dim: int) -> Float[Tensor, "h L d"]:
    """Project and split into heads."""
    return linear(x).unflatten(-1, (-1, head_dim)).transpose(0, 1)


def decoder_rows(
    layer: Any,
    hidden: Float[Tensor, "L D"],
    cos: Float[Tensor, "L d"],
    sin: Float[Tensor, "L d"],
    rows: Int64[Tensor, " Q"],
    *,
    rope: bool = True,
    causal: bool = True,
    columns: slice | None = None,
) -> Float[Tensor, "Q H L"]:
    """Softmax attention of decoder layer `layer` for the query rows `rows`, float32.

    Args:
        hidden: the layer's input, one sample, unpadded. cos, sin: rotary tables at its positions.
        rope: False scores queries and keys before rotary embedding (PruneVID).
        causal: False lets a row see the keys behind it, which no layer does (PruneVID).
        columns: restrict the softmax to these key columns; None = all that the causal mask admits.

    Returns float32 (Q, H, L), or (Q, H, len(columns)). Queries and keys are the layer's own projections in
    its dtype; the products and the softmax are float32, since bf16 collapses thousands of scores to a few
    hundred values. Matches eager attention to rounding. Cost O(Q L d + L D d_kv).
    """
    attention = layer.self_attn
    normed = layer.input_layernorm(hidden)
    query = heads_of(attention.q_proj, normed[rows], attention.head_dim)  # (H, Q, d)
    key = heads_of(attention.k_proj, normed, attention.head_dim)  # (H_kv, L, d)
    if rope:
        query = rotate(query, cos[rows], sin[rows])
        key = rotate(key, cos, sin)
    key = key.repeat_interleave(attention.num_key_value_groups, dim=0)
    logits = query.float() @ key.float().transpose(1, 2) * attention.scaling  # (H, Q, L)
    if causal:
        future = torch.arange(hidden.shape[0], device=hidden.device) > rows[:, None]  # (Q, L)
        logits = logits.masked_fill(future, float("-inf"))
    if columns is not None:
        logits = logits[..., columns]
    return logits.softmax(-1).transpose(0, 1)


def cached_row(
    layer: Any,
    hidden: Float[Tensor, " D"],
    cos: Float[Tensor, " d"],
    sin: Float[Tensor, " d"],
    keys: Float[Tensor, "h L d"],
) -> Float[Tensor, "H L"]:
    """Softmax attention of the one decoded token whose layer input is `hidden` over all cached `keys`, float32."""
    attention = layer.self_attn
    query = heads_of(attention.q_proj, layer.input_layernorm(hidden[None]), attention.head_dim)  # (H, 1, d)
    query = rotate(query, cos[None], sin[None])
    keys = keys.repeat_interleave(attention.num_key_value_groups, dim=0)
    logits = query.float() @ keys.float().transpose(1, 2) * attention.scaling
    return logits.softmax(-1).squeeze(1)


def received(
    query: Float[Tensor, "F h P d"], key: Float[Tensor, "F h P d"], scaling: float, frames_at_once: int = 4
) -> Float[Tensor, "F P"]:
    """Attention that each patch receives within its frame: mean over heads and queries, float32, rows sum to 1.

    In chunks of frames: 32 frames of 729 patches and 16 heads at once would take 1.1 GB.
    """
    out = []
    for q, k in zip(query.split(frames_at_once), key.split(frames_at_once), strict=True):
        weights = (q.float() @ k.float().transpose(-1, -2) * scaling).softmax(-1)  # (f, h, P, P)
        out.append(weights.mean((1, 2)))
    return torch.cat(out)

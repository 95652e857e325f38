"""The compression policy: one decoder layer of the LLM's own family, a head for tokens and one for frames."""

import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig

from cacovid.attention import rotary_tables

Attention = Literal["bidirectional", "causal"]

KERNELS = ("sdpa", "flash_attention_2")
"""Attention kernels that take "everyone sees everyone" without an L x L mask."""


def _head(width: int, classes: int) -> nn.Sequential:
    """D -> D/2 -> D/4 -> D/8 -> D/16 -> classes, SiLU between."""
    sizes = [width, width // 2, width // 4, width // 8, width // 16]
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(sizes):
        layers += [nn.Linear(wide, narrow), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], classes))


@dataclass(frozen=True, slots=True)
class Habit:
    """How a policy's scores become a selection unless the user says otherwise; defaults are the release's.

    importance_share: share of the budget that goes by importance, in [0, 1]; frame_cap: largest share of a frame that
    may be kept by importance, as a multiple of r.
    """

    importance_share: float = 0.5
    frame_cap: float = 1.5


class CompressionPolicy(nn.Module):
    """Scores the tokens and the frames of a video, given the LLM's whole input as embeddings.

    Source: CaCoVID section 3 and github.com/LivingFutureLab/CaCoVID (compression_policy.py); parameter names are
    the release's, so that its weights load by name. `mode_selection`, a third head that the release computes but
    neither trains nor uses, is there for its weights alone.

    `attention` says what the layer may see. `bidirectional` is the paper's method: a video token reads the
    question behind it. `causal` is what the released code really runs (its `is_causal=False` is dropped on the
    way to FlashAttention-2): video tokens are scored without the question.

    Ours differs: the heads run in float32 whatever the dtype of the layer, since bfloat16 leaves a few hundred
    different values for thousands of tokens.
    """

    def __init__(self, text_config: PreTrainedConfig, attention: Attention, kernel: str = "sdpa") -> None:
        """`text_config`: the LLM's; `kernel`: one of KERNELS."""
        super().__init__()
        if kernel not in KERNELS:
            raise ValueError(f"kernel={kernel!r}, expected one of {', '.join(KERNELS)}")
        single: Any = copy.deepcopy(text_config)
        single.num_hidden_layers, single.vocab_size, single.pad_token_id = 1, 1, None
        single.dtype = torch.float32  # else the LLM's, in which a trained layer would lose its digits
        if getattr(single, "layer_types", None):
            single.layer_types = ["full_attention"]
        family = AutoModel.from_config(single, attn_implementation=kernel)
        self.text_config, self.attention = text_config, attention
        self.habit = Habit()
        self.layers = nn.ModuleList([family.layers[0]])
        self.rotary = family.rotary_emb
        self.layernorm = family.norm
        # Both kernels read this flag where no mask is given.
        family.layers[0].self_attn.is_causal = attention == "causal"
        width = single.hidden_size
        self.token_compress, self.frame_compress = _head(width, 2), _head(width, 2)
        self.mode_selection = _head(width, 3)

    @classmethod
    def from_llm(
        cls,
        language_model: Any,
        attention: Attention = "bidirectional",
        from_layer: bool = True,
        rope_theta: float | None = None,
    ) -> "CompressionPolicy":
        """An untrained policy for an LLM: its layer is the LLM's layer 0 or random, its heads are random.

        `rope_theta`: base of its rotary positions, where one layer needs lower frequencies than the LLM has to compare
        tokens with a question at any distance (docs/findings.md); None: the LLM's.
        """
        config = copy.deepcopy(language_model.config)
        if rope_theta is not None:
            config.rope_parameters["rope_theta"] = rope_theta
        policy = cls(config, attention)
        if from_layer:
            weights = language_model.layers[0].state_dict()
            policy.layers[0].load_state_dict({name: weight.detach() for name, weight in weights.items()})
        return policy

    @property
    def width(self) -> int:
        """D, the width of the embeddings that it reads."""
        return self.layernorm.weight.numel()

    @property
    def counts_axes(self) -> bool:
        """Whether its LLM's positions are three axes (M-RoPE)."""
        return "mrope_section" in (getattr(self.text_config, "rope_parameters", None) or {})

    def forward(
        self, embeds: Float[Tensor, "B L D"], span: slice, frames: int, axes: Int64[Tensor, "L 3"] | None = None
    ) -> tuple[Float[Tensor, "B N 2"], Float[Tensor, "B T 2"]]:
        """Token logits and frame logits, columns (drop, keep), float32.

        embeds: prompt prefix, video, newline and suffix, at their original positions; `span`: the rows of the
        video, `frames` * S of them; `axes`: their position ids under M-RoPE. Every row of the batch has the same
        layout (no padding).
        """
        positions = torch.arange(embeds.shape[1], device=embeds.device) if axes is None else axes
        cos_sin = rotary_tables(self.rotary, embeds, positions[None])
        # No `position_ids`: FlashAttention would take gaps in them for packed sequences.
        out = self.layers[0](embeds, attention_mask=None, position_embeddings=cos_sin)
        video = (out if isinstance(out, Tensor) else out[0])[:, span].float()  # (B, N, D)
        per_frame = video.unflatten(1, (frames, -1)).mean(2)  # (B, T, D)
        with torch.autocast(embeds.device.type, enabled=False):
            return self.token_compress(self.layernorm(video)), self.frame_compress(self.layernorm(per_frame))

    def to_backbone(self, like: Tensor) -> "CompressionPolicy":
        """Move to the device of `like`, the layer to its dtype; norm and heads stay float32."""
        self.float().to(like.device)
        self.layers.to(like.dtype)
        return self


def keep_scores(logits: Float[Tensor, "*N 2"]) -> Float[Tensor, "*N"]:
    """keep - drop: what ranks tokens and frames."""
    drop, keep = logits.unbind(-1)
    return keep - drop

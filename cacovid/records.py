"""The frozen records that travel between the backbone, the methods and the audit.

Axis legend, used in every signature: F frames, H x W pooled grid, S = H*W tokens a frame, N = F*S video
tokens, K kept tokens, D width of the LLM, A prompt tokens before the video, M newline tokens (0 or 1), C prompt
tokens after them, L = A + N + M + C, Q query rows, P patches of a frame in the vision tower before pooling, E its
width. A flat position is n = f*S + s, frame-major. Where a tower reads several frames as one (Qwen2.5-VL: two), that
is one frame here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cacovid.errors import MethodError

Need = Literal["received_attention", "keys", "patches"]
"""What a method may ask of the vision tower's last used layer; see `VideoTokens`."""

NEEDS: frozenset[str] = frozenset(get_args(Need))


@dataclass(frozen=True, slots=True, eq=False)
class VideoTokens:
    """One video after projector and pooling, and the prompt around it: all that a pre-LLM method may look at."""

    features: Float[Tensor, "F S D"]  # projected, pooled patches, in the LLM's input space
    grid: tuple[int, int]  # (H, W) after pooling
    prefix: Float[Tensor, "A D"]  # prompt embeddings before the video
    newline: Float[Tensor, "M D"]  # LLaVA-OneVision's one newline token, never pruned, never counted; else no row
    suffix: Float[Tensor, "C D"]  # prompt embeddings after the newline: question and chat template
    question: slice  # rows of `suffix` that hold the user's words, without the chat template
    clip: str  # stable id of the video's content; part of every random seed
    captured: Mapping[str, Tensor] = field(default_factory=dict)  # what the method declared in `needs`
    axes: Int64[Tensor, "L 3"] | None = None  # position ids (time, height, width) of `embeds` under M-RoPE

    @property
    def frames(self) -> int:
        return self.features.shape[0]

    @property
    def tokens_per_frame(self) -> int:
        return self.features.shape[1]

    def __len__(self) -> int:
        """N, the number of video tokens before compression."""
        return self.frames * self.tokens_per_frame

    @property
    def flat(self) -> Float[Tensor, "N D"]:
        return self.features.flatten(0, 1)

    @property
    def span(self) -> slice:
        """The rows of `embeds` that hold the video."""
        return slice(len(self.prefix), len(self.prefix) + len(self))

    @property
    def rows(self) -> int:
        """L, the length of `embeds`."""
        return len(self.prefix) + len(self) + len(self.newline) + len(self.suffix)

    @property
    def embeds(self) -> Float[Tensor, "L D"]:
        """The LLM's whole input without compression: prefix, video, newline, suffix."""
        return torch.cat([self.prefix, self.flat, self.newline, self.suffix])

    @property
    def question_tokens(self) -> Float[Tensor, "Q D"]:
        return self.suffix[self.question]

    @property
    def received_attention(self) -> Float[Tensor, "F S"]:
        """Attention that each token receives in the vision tower's last used layer, pooled like the features.

        Mean over heads and over the queries of the same frame, float32, diagonal included; before pooling
        every frame sums to 1.
        """
        return self._need("received_attention")

    @property
    def keys(self) -> Float[Tensor, "F S h d"]:
        """Keys of the vision tower's last used layer, each head apart, pooled like the features, float32."""
        return self._need("keys")

    @property
    def patches(self) -> Float[Tensor, "F P E"]:
        """Output of the vision tower's last used layer, before projector and pooling, in the model's dtype."""
        return self._need("patches")

    def _need(self, name: str) -> Tensor:
        if name not in self.captured:
            raise MethodError(
                f"{name} was not captured for this video (captured: {sorted(self.captured) or 'nothing'}); "
                f"declare it: the method's `needs` must contain {name!r}"
            )
        return self.captured[name]


@dataclass(frozen=True, slots=True, eq=False)
class Compressed:
    """What `compress` returns. Pruning and merging look alike to the LLM and to the viewer."""

    tokens: Float[Tensor, "K D"]  # in the order in which the LLM reads them
    position: Int64[Tensor, " K"]  # the flat position that each token stands for
    owner: Int64[Tensor, " N"]  # output row that each input token went into; -1 = dropped

    @classmethod
    def keep(cls, video: VideoTokens, index: Int64[Tensor, " K"]) -> "Compressed":
        """Pure pruning: the tokens at flat positions `index`, bit-equal to the input rows."""
        owner = torch.full((len(video),), -1, dtype=torch.int64, device=index.device)
        owner[index] = torch.arange(len(index), device=index.device)
        return cls(video.flat[index], index, owner)

    def in_raster_order(self) -> "Compressed":
        """The same rows by rising position."""
        position, order = self.position.sort(stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        return Compressed(self.tokens[order], position, torch.where(self.owner < 0, self.owner, place[self.owner]))

    def __len__(self) -> int:
        return self.tokens.shape[0]


@dataclass(frozen=True, slots=True, eq=False)
class LayerCut:
    """What `prune_layer` returns: which of the current video tokens go on, and (for merging) as what."""

    keep: Int64[Tensor, " K"]  # rows among the *current* video tokens, ascending
    hidden: Float[Tensor, "K D"] | None = None  # replaces the hidden states of the kept rows, e.g. after merging
    evict: bool = False  # the dropped tokens leave the caches of the layers that already ran, too

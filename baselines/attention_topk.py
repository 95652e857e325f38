"""Plain attention top-k, in three named variants: "the largest attention score" is not one method."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from cacovid.errors import MethodError
from cacovid.method import Method, Positions, Stage
from cacovid.records import Compressed, LayerCut, Need, VideoTokens
from cacovid.select import even_quota, top_k, top_k_per_frame
from cacovid.state import PrefillState

ROUNDINGS: dict[str, Callable[[float], int]] = {"round": round, "floor": floor, "ceil": ceil}


@dataclass(frozen=True, kw_only=True)
class AttentionTopk(Method):
    """Keep the tokens with the largest attention, in the vision tower (A1) or inside the LLM (B1, B3).

    A1: attention received in the tower's last used layer, mean over heads and over the queries of the same
    frame, pooled bilinearly like the features; cut before the LLM.
    B1: attention of the last prompt row, mean over heads, in decoder layer `layer` - 1; cut before `layer`.
    B3: the same, mean over all text rows after the video (question and chat template) as well.
    Scores are float32, order is the original one, features are neither scaled nor merged. In B the layers before
    `layer` compute all tokens: the budget is what is left after the cut, the layer average is higher.

    Ours differs: A1 keeps bilinear pooling for the scores and float32 softmax as the authors do, but meets the
    budget exactly over all frames (`rounding="exact"`); B1 is FastV's code, whose paper averages over all rows,
    and its scores stay float32 where FastV casts them to the model's dtype; the newline token is always kept.
    """

    variant: Literal["A1", "B1", "B3"] = "A1"
    scope: Literal["frame", "global"] = "frame"  # A1: one top-k a frame, or one over the video
    rounding: Literal["exact", "round", "floor", "ceil"] = "exact"
    """A1 per frame, tokens a frame of r * S: `exact` shares the budget out; FlashVID takes `ceil`, FastVID
    `floor` (at least one token), missing the budget by less than one token a frame, `round` by at most half."""
    layer: int = 2  # K of B: scores from layer K - 1, cut on the input of layer K (0-based)
    positions: Positions = "compact"  # type: ignore[misc]  # A1: FastVID keeps "original" ones

    source: ClassVar[str] = (
        "A1: VisionZip (arXiv 2412.04467), FlashVID (github.com/Fanziyang-v/FlashVID); "
        "B1: FastV (arXiv 2403.06764, github.com/pkunlp-icler/FastV); B3: SparseVLM (arXiv 2410.04417) without raters"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer < 1:
            raise MethodError(f"layer={self.layer}, expected >= 1: the scores come from the layer before it")

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"received_attention"}) if self.variant == "A1" else frozenset()

    @property
    def stages(self) -> tuple[Stage, ...]:
        return ("pre-LLM",) if self.variant == "A1" else ("in-LLM",)

    def slack(self, video: VideoTokens) -> int:
        if self.variant != "A1" or self.scope == "global":
            return 0
        budget = self.budget(len(video))
        return abs(sum(self._quota(video, budget)) - budget)

    def _quota(self, video: VideoTokens, budget: int) -> list[int]:
        """Tokens to keep in each frame."""
        if self.rounding == "exact":
            return even_quota(budget, video.frames)
        share = ROUNDINGS[self.rounding](self.retention * video.tokens_per_frame)
        return [max(share, 1)] * video.frames

    def compress(self, video: VideoTokens, budget: int) -> Compressed:
        if self.variant != "A1":
            return super().compress(video, budget)
        scores = video.received_attention  # (F, S)
        if self.scope == "global":
            return Compressed.keep(video, top_k(scores, budget))
        return Compressed.keep(video, top_k_per_frame(scores, self._quota(video, budget)))

    def prune_layer(self, layer: int, state: PrefillState, budget: int) -> LayerCut | None:
        if self.variant == "A1":
            return None
        if self.layer >= len(state.layers):
            raise MethodError(
                f"layer={self.layer}, expected 1 <= layer < {len(state.layers)}: "
                f"this model has {len(state.layers)} decoder layers"
            )
        if layer != self.layer or budget >= len(state.flat):
            return None
        return LayerCut(top_k(self._lookup(state), budget))

    def _lookup(self, state: PrefillState) -> Float[Tensor, " K"]:
        """Attention to the current video tokens in the layer before the cut."""
        rows = state.last_row if self.variant == "B1" else state.rows_after_video
        if len(rows) == 0:
            raise MethodError("variant B3 reads the text rows after the video, but the prompt ends with the video")
        return state.attention(rows).mean((0, 1))  # (Q, H, K) -> (K,)

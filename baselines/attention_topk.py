"""Plain attention top-k, in seven named variants: "the largest attention score" is not one method."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from baselines._attention_rows import check_depth, row_scores, rows_that_see, schedule_from, scoring_flops
from cacovid.errors import MethodError
from cacovid.flops import DecoderShape
from cacovid.method import Method, Positions, Stage
from cacovid.records import Compressed, LayerCut, Need, VideoTokens
from cacovid.select import even_quota, top_k, top_k_per_frame
from cacovid.state import PrefillState

ROUNDINGS: dict[str, Callable[[float], int]] = {"round": round, "floor": floor, "ceil": ceil}


@dataclass(frozen=True, kw_only=True)
class AttentionTopk(Method):
    """Keep the tokens with the largest attention, in the vision tower (A1) or inside the LLM (B1 to B6).

    A1: attention received in the tower's last used layer, mean over heads and over the queries of the same
    frame, pooled like the features; cut before the LLM. In LLaVA-OneVision that is bilinear; in Qwen2.5-VL it is the
    last block's, mean over the four patches of a token (the variant A4 of the FlashVID and VisionZip ports).
    B1: attention of the last prompt row, mean over heads, in decoder layer `layer` - 1; cut before `layer`.
    B2: the same, mean over all rows of the prompt; a causal mask makes that favour early tokens.
    B3: the same, mean over all text rows after the video (question and chat template).
    B4: the largest value of any head in any of those text rows.
    B5: as B1 with the projections of decoder layer `layer` itself, one layer later.
    B6: as B1 with the softmax over the video tokens alone, which ranks otherwise once heads are averaged.
    Scores are float32, order is the original one, features are neither scaled nor merged. In B the layers before
    `layer` compute all tokens: the budget is what is left after the cut, the layer average is higher.

    Ours differs: A1 keeps bilinear pooling for the scores and float32 softmax as the authors do, but meets the
    budget exactly over all frames (`rounding="exact"`); B1 is FastV's code and B2 its paper's words, and all
    scores stay float32 where FastV casts them to the model's dtype; B4 and B5 are the scores of PruneVid (with the
    layer's real attention) and PyramidDrop in one global cut, not those methods; the newline token is always kept.
    """

    variant: Literal["A1", "B1", "B2", "B3", "B4", "B5", "B6"] = "A1"
    scope: Literal["frame", "global"] = "frame"  # A1: one top-k a frame, or one over the video
    rounding: Literal["exact", "round", "floor", "ceil"] = "exact"
    """A1 per frame, tokens a frame of r * S: `exact` shares the budget out; FlashVID takes `ceil`, FastVID
    `floor` (at least one token), missing the budget by less than one token a frame, `round` by at most half."""
    layer: int = 2  # K of B: scores from layer K - 1 (B5: K), cut on the input of layer K (0-based)
    positions: Positions = "compact"  # type: ignore[misc]  # A1: FastVID keeps "original" ones

    source: ClassVar[str] = (
        "A1: VisionZip (arXiv 2412.04467), FlashVID (github.com/Fanziyang-v/FlashVID); "
        "B1, B2: FastV (arXiv 2403.06764, github.com/pkunlp-icler/FastV); B3: SparseVLM (arXiv 2410.04417) without "
        "raters; B4: PruneVid (arXiv 2412.16117); B5: PyramidDrop (arXiv 2410.17247); "
        "B6: DyToK (github.com/yu-lin-li/DyToK)"
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

    def schedule(self, video: VideoTokens, layers: int) -> list[int]:
        budget = self.budget(len(video))
        if self.variant == "A1":
            entering = budget if self.scope == "global" else sum(self._quota(video, budget))
            return [entering] * layers
        return schedule_from(self.layer, len(video), budget, layers)

    def lookup_flops(self, video: VideoTokens, shape: DecoderShape) -> int:
        if self.variant == "A1":
            return 0
        after = len(video.suffix)
        rows = {"B2": len(video) + 1 + after, "B3": after, "B4": after}.get(self.variant, 1)
        return scoring_flops(rows, video, shape)

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
        check_depth(self.layer, len(state.layers))
        if layer != self.layer or budget >= len(state.flat):
            return None
        return LayerCut(top_k(self._lookup(state), budget))

    def _lookup(self, state: PrefillState) -> Float[Tensor, " K"]:
        """Score of the current video tokens."""
        match self.variant:
            case "B2":
                return row_scores(state, rows_that_see(state))
            case "B3" | "B4":
                rows = state.rows_after_video
                if len(rows) == 0:
                    raise MethodError(
                        f"variant {self.variant} reads the text rows after the video, but the prompt ends with it"
                    )
                return row_scores(state, rows) if self.variant == "B3" else state.attention(rows).amax((0, 1))
            case "B5":
                return state.attention(state.last_row, layer=state.layer).mean((0, 1))
            case "B6":
                return state.attention(state.last_row, over_video=True).mean((0, 1))
            case _:
                return row_scores(state, state.last_row)

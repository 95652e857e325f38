"""FastV: after K layers, keep the video tokens that the prompt's last row attends to most."""

from collections.abc import Callable
from dataclasses import dataclass
from math import floor
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from baselines._attention_rows import check_depth, row_scores, rows_that_see, schedule_from, scoring_flops
from cacovid.errors import MethodError
from cacovid.flops import DecoderShape
from cacovid.method import Method, Positions
from cacovid.records import LayerCut, VideoTokens
from cacovid.select import top_k
from cacovid.state import PrefillState

ROUNDINGS: dict[str, Callable[[float], int]] = {"round": round, "floor": floor}


@dataclass(frozen=True, kw_only=True)
class FastV(Method):
    """Keep the video tokens that the last prompt row attends to most in the LLM, from layer K on.

    Scores: attention in layer K - 1 (0-based), mean over query heads, not renormalised over the video. One top-k over
    all frames, on the input of layer K: K layers compute every token. Original order and positions; frozen at decode.
    Settings of the sources: paper `layer=2`; the authors' demo `layer=3`; their lmms-eval port `layer=3,
    rounding="floor"`. The authors' R is the share that is cut, r = 1 - R.

    Ours differs: scores stay float32 where the release casts them to the model's dtype, in which hundreds tie; the row
    is looked up without eager attention; at least one token stays; LLaVA-OneVision's newline, which the release does
    not know, is no candidate and always stays.
    """

    layer: int = 2  # K: scores from layer K - 1, cut on the input of layer K
    rows: Literal["last", "all"] = "last"
    """Whose attention counts: that of the last prompt row, as in all official code, or the mean over all rows, as the
    paper's text says; under a causal mask that favours early tokens."""
    rounding: Literal["round", "floor"] = "round"
    """Of r N: `round` is the budget of every method here and the release's; `floor` may keep one token less."""

    source: ClassVar[str] = "FastV (arXiv 2403.06764), github.com/pkunlp-icler/FastV"
    positions: ClassVar[Positions] = "original"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer < 1:
            raise MethodError(f"layer={self.layer}, expected >= 1: the scores come from the layer before it")

    def slack(self, video: VideoTokens) -> int:
        return abs(self._count(video) - self.budget(len(video)))

    def schedule(self, video: VideoTokens, layers: int) -> list[int]:
        return schedule_from(self.layer, len(video), self._count(video), layers)

    def prune_layer(self, layer: int, state: PrefillState, budget: int) -> LayerCut | None:
        check_depth(self.layer, len(state.layers))
        count = budget if self.rounding == "round" else self._count(state.video)
        if layer != self.layer or count >= len(state.flat):
            return None
        return LayerCut(top_k(self.score(state), count))

    def lookup_flops(self, video: VideoTokens, shape: DecoderShape) -> int:
        rows = 1 if self.rows == "last" else video.rows - len(video.prefix)
        return scoring_flops(rows, video, shape)

    def score(self, state: PrefillState) -> Float[Tensor, " K"]:
        """Score of the current video tokens before layer K, higher = keep; float32."""
        return row_scores(state, state.last_row if self.rows == "last" else rows_that_see(state))

    def _count(self, video: VideoTokens) -> int:
        return max(kept_tokens(self.retention, len(video), self.rounding), 1)


def kept_tokens(retention: float, total: int, rounding: str) -> int:
    """Video tokens that the sources keep of `total`: Python's round (modeling_llama.py:fastv_forward), or int
    (lmms-eval/fastv_kvcache.py). May be 0.

    >>> kept_tokens(0.15, 6272, "round"), kept_tokens(0.15, 6272, "floor")
    (941, 940)
    """
    return ROUNDINGS[rounding](retention * total)

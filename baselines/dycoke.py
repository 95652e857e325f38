"""DyCoke: temporal token merging (TTM) before the LLM, and dynamic pruning (DP) of what decoding reads."""

from dataclasses import dataclass
from math import ceil, floor
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import cosine_similarity

from baselines._dycoke_merging import LOST, WINDOW, Loop, Order, changed, fill, kept_at, references, whole
from cacovid.errors import BudgetError, MethodError
from cacovid.method import Method, Stage
from cacovid.records import Compressed, VideoTokens
from cacovid.select import even_quota, evenly_spaced, top_k
from cacovid.state import DecodeState

Gate = Literal["code", "hold"]


def attention_row(heads: Float[Tensor, "H K"]) -> Float[Tensor, " M"]:
    """Mean over heads of the new token's attention to the video tokens, without the last one, not renormalised.

    The official span ends one token early (M = K - 1), so that the last video token is always read.
    """
    return heads.float().mean(0)[:-1]


def look(row: Float[Tensor, " M"], count: int, memo: dict[str, Any], gate: Gate, threshold: float) -> Tensor | None:
    """Rows of the video tokens to read at this step, ascending: the `count` most attended and the last; None = all.

    `memo` carries the last step's row and choice. Where the cosine of the two rows reaches `threshold` nothing new
    is chosen: `code` then reads everything, as the release does (modeling_qwen2.py:dycoke_pruning), `hold` keeps
    the last choice. The first step has no row before it and chooses.
    """
    before = memo.get("dycoke_row")
    memo["dycoke_row"] = row
    # One host sync a step: how many tokens are read hangs on it.
    alike = before is not None and bool(cosine_similarity(row, before, dim=0) >= threshold)
    if not alike:
        last = torch.tensor([len(row)]).to(row.device)
        memo["dycoke_visible"] = torch.cat([top_k(row, count), last])
    elif gate == "code":
        memo["dycoke_visible"] = None
    return memo["dycoke_visible"]


class Layout(NamedTuple):
    """What TTM does with the frames of one video."""

    refs: list[int]  # see `references`
    quota: list[int]  # tokens to keep of each frame


@dataclass(frozen=True, kw_only=True)
class DyCoke(Method):
    """One frame of four whole, of the others what changed; decoding reads the most attended tokens alone.

    TTM selects and averages nothing: a pruned frame keeps the tokens least similar, place by place, to its whole
    reference frame. DP lets the layers from `layer` on read the share 1 - P of the cached video tokens; nothing is
    evicted, and the first answer token never depends on it. At r = 1 both stages are off.

    r has two accountings. `prefill`: TTM's tokens; K follows from r, and P is `pruning_rate`. `decode`: the tokens
    read while DP prunes; P follows from r, K is `merging_rate`, and the prefill costs what K leaves (49.4% of 32
    frames at K = 0.7). The floor of `prefill` is the whole frames, 28.1% of 32 frames as released and 25% of a
    fixed loop: below it BudgetError, or with `extend` another method in the same spirit (see `extend`).

    Ours differs: survivors are in raster order unless `order="similarity"`; the cosines are float32 and ties go to
    the earlier token; K is spread so that the budget is met exactly (`rounding`); one to four frames work; DP
    forgets the last sample, whose attention the official code compares with the next one's first step.
    """

    accounting: Literal["prefill", "decode"] = "prefill"
    merging_rate: float = 0.7  # K, share of a pruned frame that goes; with accounting="decode" alone
    pruning_rate: float = 0.8  # P, of the evaluation code (its README shows 0.7); with accounting="prefill"; 0 = no DP
    layer: int = 3  # L, 0-based: the first layer that reads less, by the attention of the layer before it
    gate: Gate = "code"
    threshold: float = 0.9  # cosine of two steps' attention from which on `gate` chooses nothing new
    loop: Loop = "released"
    order: Order = "raster"  # "similarity": the released order inside a pruned frame, least similar first
    rounding: Literal["exact", "released"] = "exact"  # released: the same count in every pruned frame, rounded down
    extend: bool = False
    """Ours, not the authors': below the floor, one whole frame in `window`, doubled until the whole frames fit; the
    others share the rest. Below one frame, evenly spaced tokens of the first. No frame is lost."""
    window: int = 16  # of `extend`: a power of two

    source: ClassVar[str] = "arXiv 2411.15024 (CVPR 2025); github.com/KD-TAO/DyCoke at dd74634"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("merging_rate", "pruning_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise MethodError(f"{name}={getattr(self, name)}, expected 0 <= {name} <= 1: the share that goes")
        if self.layer < 1:
            raise MethodError(f"layer={self.layer}, expected >= 1: the attention comes from the layer before it")
        if self.window < WINDOW or self.window & (self.window - 1):
            raise MethodError(f"window={self.window}, expected a power of two >= {WINDOW}")
        if self.extend and self.accounting == "decode":
            raise MethodError("extend=True goes below the floor of accounting='prefill'; accounting='decode' has none")

    @property
    def stages(self) -> tuple[Stage, ...]:
        return ("pre-LLM", "decode") if self._prunes else ("pre-LLM",)

    @property
    def _prunes(self) -> bool:
        return self.accounting == "decode" or self.pruning_rate > 0

    def layout(self, video: VideoTokens, budget: int) -> Layout:
        """References and quotas; as near to `budget` as they go where `refusal` has something to say."""
        frames, size = video.frames, video.tokens_per_frame
        refs = references(frames, self.loop)
        if self.accounting == "decode":
            return Layout(refs, fill(refs, size, [kept_at(self.merging_rate, size)] * frames))
        if self.extend and budget < size * whole(refs):
            if budget < size:
                return Layout([0] + [LOST] * (frames - 1), [budget] + [0] * (frames - 1))
            refs = references(frames, "fixed", self._wider(frames, budget // size))
        pruned = frames - whole(refs) - refs.count(LOST)
        rest = max(budget - size * whole(refs), 0)
        if self.rounding == "released":
            return Layout(refs, fill(refs, size, [rest // max(pruned, 1)] * pruned))
        return Layout(refs, fill(refs, size, even_quota(rest, pruned)))

    def _wider(self, frames: int, fitting: int) -> int:
        """The window of `extend`: `window`, doubled until no more than `fitting` >= 1 frames are whole."""
        window = self.window
        while ceil(frames / window) > fitting:
            window *= 2
        return window

    def refusal(self, video: VideoTokens, budget: int) -> str | None:
        """Why this budget cannot be met, with the floor or the ceiling and the ways out; None where it can."""
        total, size, frames = len(video), video.tokens_per_frame, video.frames
        refs, quota = self.layout(video, budget)
        got = f"got retention={self.retention:g} ({budget} of {total} video tokens)"
        if self.accounting == "decode":
            if budget <= sum(quota):
                return None
            return (
                f"DyCoke's merging_rate={self.merging_rate:g} leaves {sum(quota)} video tokens for decoding to read; "
                f"{got}; use retention <= {floor(sum(quota) / total * 1e4) / 1e4}, 1, or a lower merging_rate"
            )
        if (least := size * whole(refs)) > budget and not self.extend:
            fixed = size * whole(references(frames, "fixed"))
            other = f", loop='fixed' (floor {fixed})" if fixed < least else ""
            return (
                f"DyCoke keeps {whole(refs)} of {frames} frames whole: its floor is {least} tokens; {got}; "
                f"use retention >= {ceil(least / total * 1e4) / 1e4}{other}, or extend=True, which is not the authors'"
            )
        if (most := size * (frames - refs.count(LOST))) < budget:
            return (
                f"DyCoke's released loop loses the last of {frames} frames, an odd number: {most} tokens at most; "
                f"{got}; use loop='fixed', retention <= {floor(most / total * 1e4) / 1e4}, or 1"
            )
        return None

    @property
    def ascending(self) -> bool:  # type: ignore[override]
        return self.order == "raster"

    def slack(self, video: VideoTokens) -> int:
        budget = self.budget(len(video))
        if budget >= len(video) or self.refusal(video, budget):
            return 0
        return abs(sum(self.layout(video, budget).quota) - budget)

    def schedule(self, video: VideoTokens, layers: int) -> list[int]:
        budget = self.budget(len(video))
        if budget >= len(video):
            return [len(video)] * layers
        if self.accounting == "decode":
            raise BudgetError("with accounting='decode' the prefill does not hang on r; use budget=nominal")
        return [sum(self.layout(video, budget).quota)] * layers

    def compress(self, video: VideoTokens, budget: int) -> Compressed:
        if budget >= len(video):
            return super().compress(video, budget)
        if problem := self.refusal(video, budget):
            raise BudgetError(problem)
        refs, quota = self.layout(video, budget)
        if quota[0] < video.tokens_per_frame:  # the extension, below one frame
            return Compressed.keep(video, evenly_spaced(video.tokens_per_frame, budget).to(video.features.device))
        return Compressed.keep(video, changed(video.features, refs, quota, self.order))

    def visible(self, layer: int, step: int, state: DecodeState, budget: int) -> Int64[Tensor, " K"] | None:
        if budget >= len(state.video) or not self._prunes:
            return None
        if self.layer >= len(state.layers):
            raise MethodError(
                f"layer={self.layer}, expected 1 <= layer < {len(state.layers)}: "
                f"this model has {len(state.layers)} decoder layers"
            )
        if layer != self.layer:
            return None if layer < self.layer else state.memo["dycoke_visible"]
        row = attention_row(state.attention())
        count = budget - 1 if self.accounting == "decode" else kept_at(self.pruning_rate, len(row))
        return look(row, count, state.memo, self.gate, self.threshold)

    def compressor_flops(self, video: VideoTokens, budget: int) -> int:
        if budget >= len(video):
            return 0
        refs = self.layout(video, budget).refs
        pruned = video.frames - whole(refs) - refs.count(LOST)
        return 2 * (video.frames + pruned) * video.features[0].numel()  # squared norms and products

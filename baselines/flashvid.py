"""FlashVID: attended and diverse tokens stay, the others merge over time into trees and then over space."""

from dataclasses import dataclass
from math import ceil, floor
from numbers import Integral, Real
from typing import ClassVar

from jaxtyping import Float, Int64
from torch import Tensor

from baselines._flashvid_merge import Counts, merge_video
from baselines._flashvid_select import Selector
from baselines._flashvid_tree import TreeMean
from cacovid.budget import Measure
from cacovid.errors import MethodError
from cacovid.method import Method, Positions, Stage
from cacovid.records import Compressed, LayerCut, Need, VideoTokens
from cacovid.select import even_quota, top_k
from cacovid.state import PrefillState

DEPTH = 28
"""Decoder layers of the LLM (Qwen2-7B) that the authors' layer 20 and expansion 1.25 belong to."""
LAYER = 20


def frame_quota(slots: int, retention: float, expansion: float, alpha: float) -> tuple[int, int, int]:
    """Tokens of a frame as released: all, selected and merged ones. Double precision, from left to right.

    >>> frame_quota(196, 0.2, 1.25, 0.7)
    (49, 35, 14)
    """
    everything = min(ceil(slots * retention * expansion), slots)
    selected = ceil(everything * alpha)
    return everything, selected, everything - selected


def released_left(entering: int, llm_ratio: float) -> int:
    """Tokens after the cut inside the LLM as released."""
    return ceil(entering * llm_ratio)


def inner_keep(weights: Float[Tensor, "H K"], left: int) -> Int64[Tensor, " k"]:
    """Rows of the `left` video tokens that the last prompt row attends to most, mean over heads, ascending."""
    return top_k(weights.mean(0), left)


@dataclass(frozen=True, kw_only=True)
class FlashVID(Method):
    """Keep attended, diverse tokens, merge the rest over time into trees and over space; cut once more in the LLM.

    Before the LLM: the video is cut into segments of like frames. Of each frame a share `alpha` of its tokens is
    selected greedily by attention and distance. Each other token joins the most similar one of the frame before, if
    similar enough; the trees that result are clustered frame by frame. Inside the LLM, before `layer`, the video
    tokens that the last prompt row attends to least are dropped. r is the average over the LLM's layers: `expansion`
    times as many tokens enter, so that at r = 10% 12.5% do. r = 1 is the uncompressed model.

    Ours differs: the layer average is r to half a token (`counts="exact"`; the release rounds up in every frame and
    again in every cluster count); above r = 0.8, where the release has no answer, all tokens enter and fewer are
    dropped; a token is selected once (`distinct`); everything is float32, ties go to the lower position where the
    release adds noise, and the newline token is always kept. The release's tree mean is kept unless `tree_mean`
    says otherwise, and so are the positions that occur twice in segments of one frame.
    """

    alpha: float = 0.7  # share of a frame's tokens that is selected; the others are merged
    merge_threshold: float = 0.8  # T: a token merges over time above this cosine; 1 = never
    segment_threshold: float = 0.9  # a segment ends where the frames' mean tokens have a smaller cosine
    min_segments: int = 8  # at least so many; the authors take 4 for Qwen2.5-VL
    neighbours: int = 7  # of the density
    selector: Selector = "v2"  # v1 for Qwen2.5-VL
    distinct: bool = True  # False: as the release, v2 may select a token again where relevance is not positive
    tree_mean: TreeMean = "released"
    inner: bool = True  # the cut inside the LLM
    layer: int | None = None
    """K: attention of layer K - 1, cut on the input of layer K (0-based). None = round(20/28 of the layers)."""
    llm_ratio: float = 0.3  # share of the entering tokens that is left after K
    expansion: float | None = None
    """Tokens that enter, in units of r N. None = what makes r the layer average of 28 layers at `layer` and
    `llm_ratio`: 1.25 with the authors' 20 and 0.3; 1 without the inner cut."""
    counts: Counts = "exact"
    """`exact`: a layer average of r; what is left after K is solved for it, which is `llm_ratio` up to rounding on 28
    layers. `released`: ceil(r S expansion) tokens a frame, ceil(llm_ratio v) after K; the total hangs on the video."""
    positions: Positions = "compact"  # type: ignore[misc]  # `original` for Qwen2.5-VL

    source: ClassVar[str] = "FlashVID (arXiv 2602.08024, github.com/Fanziyang-v/FlashVID)"
    means: ClassVar[Measure] = "layer_average"
    repeats: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low, high in (("alpha", 0, 1), ("merge_threshold", -1, 1), ("segment_threshold", -1, 1)):
            if not low <= getattr(self, name) <= high:
                raise MethodError(f"{name}={getattr(self, name)}, expected {low} <= {name} <= {high}")
        for name in ("min_segments", "neighbours"):
            if getattr(self, name) < 1:
                raise MethodError(f"{name}={getattr(self, name)}, expected >= 1")
        if not 0 < self.llm_ratio <= 1:
            raise MethodError(f"llm_ratio={self.llm_ratio}, expected 0 < llm_ratio <= 1: the share that is left")
        if self.layer is not None and not (isinstance(self.layer, Integral) and self.layer >= 1):
            raise MethodError(f"layer={self.layer!r}, expected an integer >= 1 or None: scores are the layer before's")
        if self.expansion is not None and not (isinstance(self.expansion, Real) and 1 <= self.expansion < float("inf")):
            raise MethodError(f"expansion={self.expansion!r}, expected a number >= 1, or None to derive it")
        if self.counts == "exact" and not self.inner and self.expansion not in (None, 1):
            raise MethodError(
                f"expansion={self.expansion} without the inner cut is a layer average of {self.expansion} r; "
                f"leave it None, or use counts='released'"
            )

    @property
    def adaptive(self) -> bool:  # type: ignore[override]
        return self.counts == "released"

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset() if self.selector == "diversity" else frozenset({"received_attention"})

    @property
    def stages(self) -> tuple[Stage, ...]:
        return ("pre-LLM", "in-LLM") if self.inner else ("pre-LLM",)

    def expand(self) -> float:
        """`expansion`, derived where it is None."""
        if self.expansion is not None:
            return self.expansion
        layer = min(LAYER if self.layer is None else self.layer, DEPTH)
        return DEPTH / (layer + (DEPTH - layer) * self.llm_ratio) if self.inner else 1.0

    def quota(self, video: VideoTokens, budget: int) -> list[int]:
        """Tokens of each frame that enter the LLM; as released, each up to one more than its clusters' share."""
        if self.counts == "released":
            each, _, _ = frame_quota(video.tokens_per_frame, self.retention, self.expand(), self.alpha)
            return [each] * video.frames
        # down: half a token more in each of the K layers could be more than the layers after K can give back
        entering = min(floor(budget * self.expand() + 1e-9), len(video))
        return even_quota(entering, video.frames)

    def cut_layer(self, layers: int) -> int:
        """K in an LLM of so many layers. Raises MethodError where there is no such layer."""
        layer = round(LAYER / DEPTH * layers) if self.layer is None else self.layer
        if not 1 <= layer < layers:
            raise MethodError(
                f"layer={layer}, expected 1 <= layer < {layers}: this model has {layers} decoder layers; "
                f"inner=False does without the cut"
            )
        return layer

    def left(self, entering: int, budget: int, layers: int) -> int:
        """Tokens after the inner cut. Raises MethodError where no number makes the layer average r."""
        if self.counts == "released":
            return released_left(entering, self.llm_ratio)
        layer = self.cut_layer(layers)
        after = layers - layer
        left = min(max((2 * (budget * layers - layer * entering) + after) // (2 * after), 1), entering)
        missed = layer * entering + after * left - budget * layers
        if 2 * missed > layers:
            raise MethodError(
                f"{entering} tokens in the first {layer} of {layers} layers are above a layer average of {budget}, "
                f"whatever is left after them; use expansion={layers / (layer + after * self.llm_ratio):.4g} for these "
                f"layers and llm_ratio={self.llm_ratio}, or layer=None"
            )
        return left

    def compress(self, video: VideoTokens, budget: int) -> Compressed:
        if budget >= len(video):
            return super().compress(video, budget)
        attention = video.received_attention if "received_attention" in self.needs else None
        expected = (video.frames, video.tokens_per_frame)
        if attention is not None and attention.shape != expected:
            raise MethodError(
                f"received_attention {tuple(attention.shape)}, expected {expected}: pool it like the features"
            )
        quota = self.quota(video, budget)
        if sum(quota) == len(video):
            return super().compress(video, budget)
        return merge_video(
            video.features,
            attention,
            quota,
            alpha=self.alpha,
            merge_threshold=self.merge_threshold,
            segment_threshold=self.segment_threshold,
            min_segments=self.min_segments,
            neighbours=self.neighbours,
            selector=self.selector,
            distinct=self.distinct,
            tree_mean=self.tree_mean,
            counts=self.counts,
        ).compressed

    def prune_layer(self, layer: int, state: PrefillState, budget: int) -> LayerCut | None:
        if not self.inner or budget >= len(state.video):
            return None
        if layer != self.cut_layer(len(state.layers)):
            return None
        left = self.left(len(state.flat), budget, len(state.layers))
        if left >= len(state.flat):
            return None
        return LayerCut(inner_keep(state.attention(state.last_row)[0], left))

    def schedule(self, video: VideoTokens, layers: int) -> list[int]:
        budget = self.budget(len(video))
        if budget >= len(video):
            return [len(video)] * layers
        exact = self.counts == "exact"
        entering = sum(self.quota(video, budget)) if exact else len(self.compress(video, budget))
        if not self.inner:
            return [entering] * layers
        layer = self.cut_layer(layers)
        return [entering] * layer + [self.left(entering, budget, layers)] * (layers - layer)

    def compressor_flops(self, video: VideoTokens, budget: int) -> int:
        """Cosines inside and between frames, relevance, and distances as if no token had merged over time."""
        quota = self.quota(video, budget)
        if budget >= len(video) or sum(quota) == len(video):
            return 0
        frames, slots = video.frames, video.tokens_per_frame
        inside = frames * slots**2 if self.selector != "attention" else 0
        relevant = frames * slots if self.selector == "v2" else 0
        between = (frames - 1) * slots**2
        clustered = frames * slots**2 if any(kept > ceil(kept * self.alpha) for kept in quota) else 0
        return 2 * (inside + relevant + between + clustered) * video.features.shape[-1]

"""PruneVid: merge what stays the same over time and space, then select inside the LLM what the question looks at."""

from dataclasses import dataclass
from numbers import Integral
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from baselines._density_peaks import cluster, means
from baselines._prunevid_plan import MIN_BLOCK, Plan, clusters_of, fit, proportional, released, select
from baselines._prunevid_split import frame_labels, refine, run_lengths, similarity
from cacovid.errors import MethodError
from cacovid.flops import DecoderShape
from cacovid.method import Method
from cacovid.records import Compressed, LayerCut, VideoTokens
from cacovid.state import PrefillState

LAYER, DEPTH = 10, 28
"""The authors' M, and the decoder layers of the LLM (Qwen2-7B) to which a smaller one is compared."""

NEIGHBOURS = 7
"""k of every clustering, hard-coded in the code; sets of fewer points take all of them."""


@dataclass(frozen=True, kw_only=True)
class PruneVid(Method):
    """Merge static and similar tokens before the LLM, then keep per block what the question attends to inside it.

    Before the LLM: frames are clustered into temporal segments; a grid position whose mean cosine over a segment
    exceeds `tau` is static there and becomes its mean over time; the static tokens of each segment, and the other
    tokens of each frame, are clustered into `beta` of their number (DPC-KNN) and averaged.
    After decoder layer `layer` has run, each of these blocks keeps `alpha` of its rows: those with the largest
    attention of any head from any text row after the video. The dropped rows leave the caches of all layers.
    Rows stand in block order: of a segment the static block, then each frame's; in a clustered block by the centre's
    score. A row's position is that of its centre, of a static one in the segment's first frame.

    Ours differs: r is met exactly as the share left after the selection (`knobs`), where the authors' count follows
    from the video; equal densities are told apart by index, not by noise; means and attention are float32 where the
    code casts to the model's dtype; fewer than 7 frames or points use all of them as neighbours where the code
    stops; one frame alone is dynamic. LLaVA-OneVision's newline token, which the released code does not know, is
    always kept and asks nothing. Code and paper name the scores differently: see `scores`.
    """

    knobs: Literal["solved", "solved_beta", "paper"] = "solved"
    """What gives way so that round(r N) tokens are left. `solved`: alpha, while beta stays; beta rises where it leaves
    too few rows, then tau. `solved_beta`: beta first, so that alpha holds: fewer rows in the early layers, hence lower
    layer averages. `paper`: nothing; at r < 1 the numbers below hold whatever r is, and the count follows the video."""
    tau: float = 0.8  # static above this mean cosine over the segment
    gamma: float = 0.25  # frame clusters a frame
    beta: float = 0.5  # rows a token of a clustered block
    alpha: float = 0.4  # share of each block that the selection keeps
    layer: int | None = None
    """M, 0-based: scores from this layer, cut after it. None = 10, or the same share of an LLM under 28 layers."""
    scores: Literal["code", "causal_rope"] = "code"
    """`code`: queries and keys before rotary embedding, softmax over all keys without causal mask, as released;
    `causal_rope`: the layer's real attention, as the paper has it."""
    order: Literal["blocks", "raster"] = "blocks"  # rows in the authors' order, or by position
    newline_asks: bool = False  # the row behind the video is a query, too

    source: ClassVar[str] = "PruneVid (arXiv 2412.16117, github.com/Visual-AI/PruneVid)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -1 <= self.tau <= 1:
            raise MethodError(f"tau={self.tau}, expected -1 <= tau <= 1: a mean cosine")
        for name in ("gamma", "beta", "alpha"):
            if not 0 < (value := getattr(self, name)) <= 1:
                raise MethodError(f"{name}={value}, expected 0 < {name} <= 1: a share")
        if self.layer is not None and not (isinstance(self.layer, Integral) and self.layer >= 0):
            raise MethodError(f"layer={self.layer!r}, expected an integer >= 0 or None: tokens are cut after it")

    @property
    def adaptive(self) -> bool:  # type: ignore[override]
        """The authors' numbers give every video another count."""
        return self.knobs == "paper" and self.retention < 1

    @property
    def ascending(self) -> bool:  # type: ignore[override]
        return self.order == "raster"

    def plan(self, video: VideoTokens, budget: int) -> Plan:
        """Blocks of the video and how far they shrink, such that `budget` tokens can be left."""
        lengths = run_lengths(refine(frame_labels(video.features, self.gamma, NEIGHBOURS).tolist()))
        likeness = similarity(video.features, lengths).cpu()
        plan = Plan(lengths, likeness > self.tau, self.beta)
        if self.knobs == "paper":
            return plan
        return fit(plan, likeness, budget, self.alpha if self.knobs == "solved_beta" else None)

    def quota(self, plan: Plan, budget: int) -> list[int]:
        """Rows of each block that the selection keeps."""
        blocks = plan.blocks()
        return released(blocks, self.alpha) if self.knobs == "paper" else proportional(blocks, budget)

    def compress(self, video: VideoTokens, budget: int) -> Compressed:
        if budget >= len(video):
            return super().compress(video, budget)
        merged = merge(video.features, self.plan(video, budget))
        return merged.in_raster_order() if self.order == "raster" else merged

    def prune_layer(self, layer: int, state: PrefillState, budget: int) -> LayerCut | None:
        if budget >= len(state.video):
            return None
        after = self._cut_after(len(state.layers))
        if layer != after + 1:
            return None
        plan = self.plan(state.video, budget)
        if plan.rows() != len(state.flat):
            raise MethodError(
                f"PruneVid selects among the {plan.rows()} rows that it made before the LLM, but {len(state.flat)} "
                f"video tokens are left at layer {layer}: another method cut in between"
            )
        block = plan.block_of_token().flatten().to(state.flat.device)[state.flat]
        keep = select(self.question_scores(state), block, self.quota(plan, budget))
        return LayerCut(keep, evict=True)

    def question_scores(self, state: PrefillState) -> Float[Tensor, " K"]:
        """Largest attention that each video token gets, over heads and rows after the video, in the layer that ran."""
        asking = torch.arange(state.span.stop, len(state.positions), device=state.positions.device)
        rows = asking if self.newline_asks else state.rows_after_video
        if len(rows) == 0:
            raise MethodError("PruneVid selects by the text after the video, but the prompt ends with the video")
        own = self.scores == "causal_rope"
        return state.attention(rows, rope=own, causal=own).amax((0, 1))  # (Q, H, K) -> (K,)

    def schedule(self, video: VideoTokens, layers: int) -> list[int]:
        budget = self.budget(len(video))
        if budget >= len(video):
            return [budget] * layers
        after = self._cut_after(layers)
        plan = self.plan(video, budget)
        left = max(sum(self.quota(plan, budget)), 1)
        return [plan.rows()] * (after + 1) + [left] * (layers - after - 1)

    def _cut_after(self, layers: int) -> int:
        """M in an LLM of so many layers. Raises MethodError where there is no layer behind it."""
        layer = LAYER * min(layers, DEPTH) // DEPTH if self.layer is None else self.layer
        if layer + 1 >= layers:
            raise MethodError(
                f"layer={layer}, expected 0 <= layer < {layers - 1}: tokens are cut between decoder layers "
                f"`layer` and `layer` + 1, and this model has {layers} decoder layers"
            )
        return layer

    def lookup_flops(self, video: VideoTokens, shape: DecoderShape) -> int:
        """Of the question's rows, over all rows that stage 1 left."""
        budget = self.budget(len(video))
        if budget >= len(video):
            return 0
        asking = len(video.suffix) + (len(video.newline) if self.newline_asks else 0)
        return shape.attention_rows(asking, video.rows - len(video) + self.plan(video, budget).rows())

    def compressor_flops(self, video: VideoTokens, budget: int) -> int:
        """Distances between frames, and between the tokens of each clustered block."""
        if budget >= len(video):
            return 0
        plan = self.plan(video, budget)
        sizes = [(1, static) for _, static, _ in plan.segments()] + [(w, dynamic) for w, _, dynamic in plan.segments()]
        pairs = video.frames**2 + sum(sets * size**2 for sets, size in sizes if size > MIN_BLOCK)
        return 2 * pairs * video.features.shape[-1]


def merge(features: Float[Tensor, "F S D"], plan: Plan) -> Compressed:
    """Stage 1 after the split: merged rows in the authors' order (modeling_pllava.py:merge_frames_dynamic).

    A row's position is its centre's, so `owner` of it is the row itself.
    """
    slots = torch.arange(features.shape[0] * features.shape[1], device=features.device).view(features.shape[:2])
    owner = torch.empty_like(slots)
    rows: list[Tensor] = []
    position: list[Tensor] = []
    start = made = 0
    for frames, static in zip(plan.lengths, plan.static, strict=True):
        inside = slice(start, start + frames)
        fixed, moving = (mask.nonzero().squeeze(1).to(features.device) for mask in (static, ~static))
        clip = features[inside]  # (W, S, D)
        for columns, x in ((fixed, clip[:, fixed].float().mean(0, keepdim=True)), (moving, clip[:, moving])):
            merged, labels, centres = merge_sets(x, plan.beta)  # one set of static tokens, W sets of the others
            first = made + torch.arange(len(x), device=features.device)[:, None] * merged.shape[1]
            owner[inside, columns] = first + labels  # a static row owns its position in all frames
            rows.append(merged.flatten(0, 1).to(features.dtype))
            position.append(slots[start : start + len(x), columns].gather(1, centres).flatten())
            made += len(rows[-1])
        start += frames
    return Compressed(torch.cat(rows), torch.cat(position), owner.flatten())


def merge_sets(
    x: Float[Tensor, "B n D"], beta: float
) -> tuple[Float[Tensor, "B m D"], Int64[Tensor, "B n"], Int64[Tensor, "B m"]]:
    """Cluster means, labels and centres of `B` blocks of one size; blocks of 14 tokens and fewer stay as they are."""
    count = clusters_of(x.shape[1], beta)
    if x.shape[1] <= MIN_BLOCK:
        same = torch.arange(count, device=x.device).expand(x.shape[:2])
        return x, same, same
    centres, labels = cluster(x, count, NEIGHBOURS)
    return means(x, labels, count), labels, centres

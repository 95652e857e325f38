"""HoliTom: temporal windows by a global dynamic program, static slots merged over time, then over space."""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from baselines._density_peaks import assign, distances, peaks
from baselines._holitom_plan import Plan, make_plan, transition_similarity
from cacovid.budget import Measure
from cacovid.errors import MethodError
from cacovid.method import Method, Stage
from cacovid.records import Compressed, LayerCut, Need, VideoTokens
from cacovid.select import ranks
from cacovid.state import PrefillState


class Merged(NamedTuple):
    """The static slots of one window, clustered."""

    rows: Float[Tensor, "C D"]  # float32
    centres: Int64[Tensor, " C"]  # ascending
    labels: Int64[Tensor, " n"]  # row that each slot went into


def merge_static(x: Float[Tensor, "n D"], clusters: int, neighbours: int, beta: float) -> Merged:
    """`clusters` rows for `n` slots: density peaks, each `beta` of itself and 1 - `beta` of its members' mean.

    A centre without members stays as it is. The members' mean leaves the centre out. Density over at most
    `clusters` neighbours. Source: holitom/llava_arch.py:merge_tokens_by_density.
    """
    x = x.float()
    dist = distances(x)
    centres = peaks(dist, clusters, min(neighbours, clusters)).sort().values
    labels = assign(dist, centres)
    members = torch.ones_like(x[:, :1]).index_fill_(0, centres, 0)  # (n, 1): 0 for the centres
    counts = x.new_zeros(clusters, 1).index_add_(0, labels, members)
    means = x.new_zeros(clusters, x.shape[1]).index_add_(0, labels, x * members) / counts.clamp_min(1)
    own = x[centres]
    return Merged(torch.where(counts > 0, beta * own + (1 - beta) * means, own), centres, labels)


def merge_video(
    features: Float[Tensor, "F S D"], scores: Float[Tensor, "F S"], plan: Plan, *, neighbours: int, beta: float
) -> Compressed:
    """The outer stage: of every window first its merged static rows, then what stays of each frame, in raster order.

    Dynamic tokens are kept by the highest score and stay bit-equal; static slots are averaged over the window's
    frames and clustered. A merged row stands at its centre's slot in the window's first frame.
    """
    frames, slots, width = features.shape
    device = features.device
    window = plan.window  # (F)
    kept = ranks(scores.cpu().masked_fill(plan.static[window], -torch.inf)) < torch.tensor(plan.single)[:, None]
    single = kept.flatten().nonzero().squeeze(1)  # flat positions, ascending
    until = torch.tensor(plan.merged).cumsum(0)  # merged rows up to and with each window
    single_row = torch.arange(len(single)) + until[window[single // slots]]

    tokens = features.new_empty(len(plan), width)
    position = torch.empty(len(plan), dtype=torch.int64, device=device)
    owner = torch.full((frames, slots), -1, dtype=torch.int64, device=device)
    single, single_row = single.to(device), single_row.to(device)
    tokens[single_row] = features.flatten(0, 1)[single]
    position[single_row] = single
    owner.view(-1)[single] = single_row

    row = 0
    for (first, last), still, clusters in zip(plan.windows.tolist(), plan.static, plan.merged, strict=True):
        if clusters:
            slot = still.nonzero().squeeze(1).to(device)
            inside = features[first : last + 1].index_select(1, slot)  # (L, n, D)
            merged = merge_static(inside.float().mean(0), clusters, neighbours, beta)
            tokens[row : row + clusters] = merged.rows.to(features.dtype)
            position[row : row + clusters] = first * slots + slot[merged.centres]
            owner[first : last + 1, slot] = row + merged.labels
        row += clusters + sum(plan.single[first : last + 1])
    return Compressed(tokens, position, owner.flatten())


def fold(hidden: Float[Tensor, "v D"], scores: Float[Tensor, " v"], keep: int) -> LayerCut:
    """The inner stage: the `keep` rows of the highest score, each averaged in turn with the rows most like it.

    Every dropped row u, by rising position, goes to the kept row t of the largest cosine and makes it (t + u) / 2.
    So of m that came to t, number j (from 0) weighs 2^(j - m) and t itself 2^-m: no running loop is needed.
    Similarities are those before any update. Source: holitom/modeling_qwen2.py:forward.
    """
    order = scores.argsort(descending=True, stable=True)
    kept, dropped = order[:keep], order[keep:].sort().values
    x = hidden.float()
    unit = nn.functional.normalize(x, dim=-1)
    target = (unit[dropped] @ unit[kept].T).argmax(1)  # of equal cosines the kept row of the higher score
    came = torch.zeros_like(kept).index_add_(0, target, torch.ones_like(target))
    by_target = target.argsort(stable=True)
    turn = torch.empty_like(target)  # j
    turn[by_target] = torch.arange(len(target), device=target.device) - (came.cumsum(0) - came)[target[by_target]]
    weight = torch.exp2((turn - came[target]).float())[:, None]
    rows = x[kept] * torch.exp2(-came.float())[:, None]
    rows.index_add_(0, target, x[dropped] * weight)
    rising = kept.sort()
    return LayerCut(rising.values, rows[rising.indices].to(hidden.dtype))


@dataclass(frozen=True, kw_only=True)
class HoliTom(Method):
    """Merge what stays still: windows of frames by a dynamic program, static slots over time, then over space.

    Outer stage, before the LLM: the video is cut into the windows that save most tokens; in each, slots whose
    token stays similar from frame to frame are averaged over time and clustered (density peaks); of every frame's
    other tokens the most attended stay. Inner stage (`inner`, the paper's M), before LLM layer `inner_layer`: the
    tokens that the last prompt row attends to least are folded into the most similar ones that stay.
    r counts what enters the LLM; the inner stage cuts on top of that. r = 1 is the uncompressed model.

    Ours differs: the budget is met exactly (`counts="exact"`; the release misses it by the rounding of each part,
    and on a still video by any amount); similarities, means and scores are float32; ties go to the lower index
    where the release adds noise. In the inner stage, the newline token neither competes nor is merged, and the
    layer that the attention is looked up in stays causal: the release makes it bidirectional by accident.
    """

    tau: float = 0.8  # a slot is static above this cosine; the authors' script takes 0.65 at r = 0.10
    beta: float = 0.6  # share of the cluster centre in a merged row
    neighbours: int = 7  # of the density
    max_window: int = 1024  # frames
    inner: bool = False
    inner_layer: int = 18  # k: attention of layer k - 1, cut on the input of layer k (0-based)
    inner_drop: float = 0.5  # share of the entering tokens that the inner stage folds away
    counts: Literal["exact", "released"] = "exact"
    """`released`: ceil and round per frame and window, as in the official code; the total hangs on the video."""
    order: Literal["static_first", "raster"] = "static_first"
    """Of the rows inside a window: as for LLaVA-OneVision, or by position as the release does for LLaVA-Video."""

    source: ClassVar[str] = "HoliTom (arXiv 2505.21334), github.com/cokeshao/HoliTom"
    means: ClassVar[Measure] = "entering"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low, high in (("tau", -1, 1), ("beta", 0, 1)):
            if not low <= getattr(self, name) <= high:
                raise MethodError(f"{name}={getattr(self, name)}, expected {low} <= {name} <= {high}")
        for name in ("neighbours", "max_window", "inner_layer"):
            if getattr(self, name) < 1:
                raise MethodError(f"{name}={getattr(self, name)}, expected >= 1")
        if not 0 <= self.inner_drop < 1:
            raise MethodError(
                f"inner_drop={self.inner_drop}, expected 0 <= inner_drop < 1: the share that is folded away"
            )

    @property
    def adaptive(self) -> bool:  # type: ignore[override]
        return self.counts == "released"

    @property
    def ascending(self) -> bool:  # type: ignore[override]
        return self.order == "raster"

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"received_attention"})

    @property
    def stages(self) -> tuple[Stage, ...]:
        return ("pre-LLM", "in-LLM") if self.inner else ("pre-LLM",)

    def _plan(self, video: VideoTokens, budget: int) -> Plan:
        similarity = transition_similarity(video.features)
        exact = budget if self.counts == "exact" else None
        return make_plan(similarity, self.retention, exact, tau=self.tau, max_window=self.max_window)

    def _left(self, entering: int) -> int:
        """Tokens after the inner stage."""
        return max(round(entering * (1 - self.inner_drop)), 1)

    def compress(self, video: VideoTokens, budget: int) -> Compressed:
        scores = video.received_attention
        if budget >= len(video):
            return super().compress(video, budget)
        plan = self._plan(video, budget)
        out = merge_video(video.features, scores, plan, neighbours=self.neighbours, beta=self.beta)
        return out if self.order == "static_first" else out.in_raster_order()

    def prune_layer(self, layer: int, state: PrefillState, budget: int) -> LayerCut | None:
        if not self.inner:
            return None
        if self.inner_layer >= len(state.layers):
            raise MethodError(
                f"inner_layer={self.inner_layer}, expected 1 <= inner_layer < {len(state.layers)}: "
                f"this model has {len(state.layers)} decoder layers"
            )
        keep = self._left(len(state.flat))
        if layer != self.inner_layer or budget >= len(state.video) or keep >= len(state.flat):
            return None
        return fold(state.hidden, state.attention(state.last_row).mean((0, 1)), keep)

    def schedule(self, video: VideoTokens, layers: int) -> list[int]:
        budget = self.budget(len(video))
        if budget >= len(video):
            return [len(video)] * layers
        entering = budget if self.counts == "exact" else len(self._plan(video, budget))
        if not self.inner:
            return [entering] * layers
        return [entering] * min(self.inner_layer, layers) + [self._left(entering)] * (layers - self.inner_layer)

    def compressor_flops(self, video: VideoTokens, budget: int) -> int:
        if budget >= len(video):
            return 0
        plan = self._plan(video, budget)
        similarity = (video.frames - 1) * video.tokens_per_frame
        sizes = plan.static.sum(1).tolist()
        pairs = sum(n * n for n, clusters in zip(sizes, plan.merged, strict=True) if clusters)
        left = self._left(len(plan))
        inner = left * (len(plan) - left) if self.inner else 0
        return 2 * (similarity + pairs + inner) * video.features.shape[-1]

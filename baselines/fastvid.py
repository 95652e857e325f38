"""FastVID: salient tokens of every frame, and context tokens merged by density over segments of alike frames."""

from dataclasses import dataclass
from math import isqrt
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from baselines._density_peaks import density, distances, separation
from baselines._fastvid_head import PUBLISHED, PoolingHead, fingerprint, load_head
from baselines._fastvid_plan import Plan, make_plan, segment_lengths, transitions
from cacovid.errors import MethodError
from cacovid.method import Method, Positions
from cacovid.records import Compressed, Need, VideoTokens
from cacovid.select import ranks

NEIGHBOURS = 4
"""Of the density, the token itself included; the same for every number of context tokens, as in the release."""


def pool_attention(attention: Float[Tensor, "F P"], grid: tuple[int, int]) -> Float[Tensor, "F S"]:
    """Attention over the square of a frame's patches, pooled as LLaVA-OneVision pools its features; not renormalised.

    Raises MethodError for patches that are no square.
    """
    side = isqrt(attention.shape[1])
    if side * side != attention.shape[1]:
        raise MethodError(f"{attention.shape[1]} patches a frame, expected a square grid such as SigLIP's 27 x 27")
    image = attention.unflatten(1, (1, side, side))
    return interpolate(image, size=grid, mode="bilinear").flatten(1)


def salient_mask(saliency: Float[Tensor, "F S"], count: int) -> Bool[Tensor, "F S"]:
    """The `count` most salient tokens of each frame; of equal ones the earlier."""
    return ranks(saliency.float()) < count


def leftovers(salient: Bool[Tensor, "F S"], count: int) -> Int64[Tensor, "F U"]:
    """Slots of the tokens that are not salient, in raster order; each frame has `count` salient ones."""
    slots = salient.shape[1] - count
    return salient.byte().argsort(dim=1, stable=True)[:, :slots]  # stable: raster order, and nothing waits


def peak_scores(tokens: Float[Tensor, "B U D"]) -> Float[Tensor, "B U"]:
    """Density times separation of each token within its frame, float32; one U x U table a frame."""
    dist = distances(tokens)
    rho = density(dist, NEIGHBOURS)
    return rho * separation(dist, rho)


def merge_into(
    pool: Float[Tensor, "n D"], anchors: Int64[Tensor, " q"], beta: float
) -> tuple[Float[Tensor, "q D"], Int64[Tensor, " n"]]:
    """Rows of the `anchors` after every token of the pool joined the one of the largest cosine, and which that is.

    row = w anchor + (1 - w) group mean, w = max(1 / (size + 1), `beta`). An anchor counts in its own group, so that
    w is `beta` from 0.5 on; it is 1 for an anchor that repeats an earlier one, whose group is empty.
    All float32. Of equal cosines the first anchor wins; a zero vector goes to the first anchor. Cost: n q D.
    """
    own = pool[anchors]
    group = (pool @ normalize(own, dim=-1).T).argmax(1)  # a token's own length does not change whose is largest
    sizes = pool.new_zeros(len(anchors), 1).index_add_(0, group, torch.ones_like(pool[:, :1]))
    means = torch.zeros_like(own).index_add_(0, group, pool) / sizes.clamp_min(1)
    weight = (1 / (sizes + 1)).clamp_min(beta)
    return weight * own + (1 - weight) * means, group


def merge_video(
    features: Float[Tensor, "F S D"], saliency: Float[Tensor, "F S"], plan: Plan, beta: float
) -> Compressed:
    """Salient tokens as they are, context tokens merged at the slots of their anchors, in raster order.

    The anchors of a frame are its leftovers of the largest peak score. The leftovers of ALL frames of a segment are
    merged into the anchors of each of its anchor frames anew, so that a token may go into several rows: its `owner`
    is the one in the first anchor frame from its own frame on, or the last anchor frame of the segment.
    """
    frames, slots, width = features.shape
    flat, device = features.flatten(0, 1), features.device
    salient = salient_mask(saliency, plan.salient)
    start = slots * torch.arange(frames, device=device)[:, None]
    place = leftovers(salient, plan.salient) + start  # (F, U), flat positions
    pool = flat[place].float()  # (F, U, D)
    holders = [frame for frame, count in enumerate(plan.context) if count]
    best = peak_scores(pool[holders]).argsort(dim=1, descending=True, stable=True) if holders else place[:0]
    anchors = {f: best[i, : plan.context[f]] for i, f in enumerate(holders)}  # numbers among the leftovers
    anchor_at = {f: place[f, numbers] for f, numbers in anchors.items()}

    kept = salient.byte().argsort(dim=1, descending=True, stable=True)[:, : plan.salient] + start
    position = torch.cat([kept.flatten(), *anchor_at.values()]).sort().values
    row = torch.full((frames * slots,), -1, device=device)
    row[position] = torch.arange(len(position), device=device)
    tokens, owner = flat[position], row.clone()

    first = 0
    for length in plan.lengths:
        stop = first + length
        inside = [f for f in range(first, stop) if f in anchors]
        members, since = pool[first:stop].view(-1, width), first
        for f in inside:
            numbers = anchors[f] + (f - first) * pool.shape[1]
            rows, group = merge_into(members, numbers, beta)
            tokens[row[anchor_at[f]]] = rows.to(tokens.dtype)
            until = stop if f == inside[-1] else f + 1
            joined = row[anchor_at[f]][group].view(length, -1)
            owner[place[since:until]] = joined[since - first : until - first]
            since = until
        first = stop
    owner[position] = row[position]  # an anchor stays where it stands, whatever other row it went into as well
    return Compressed(tokens, position, owner)


@dataclass(frozen=True, kw_only=True)
class FastVID(Method):
    """Keep the salient tokens of every frame, and merge the others by density over segments of alike frames.

    Segments: cuts where the descriptors of neighbouring frames differ most, and wherever their cosine is below tau.
    Salient: the largest attention of the probe of SigLIP's pooling head, per frame. Context: in every 4th frame of a
    segment, counted from its last, the density peaks among the other tokens; the segment's other tokens are merged
    into them. The head comes from a SigLIP checkpoint (`head`): LLaVA-OneVision's own has dropped it.

    Ours differs: the budget is met exactly (`rounding="exact"`) where the release rounds down frame by frame and
    loses what anchor frames cannot share evenly; where they have no room for their tokens (from about r = 0.46) the
    release stops, ours takes more anchor frames; scores, cosines and means are float32, and ties go to the earlier
    token where the release adds noise to densities. `saliency="received_attention"` is a stand-in, not FastVID.
    """

    head: str = ""  # folder or hub id of the SigLIP that the tower was made from
    saliency: Literal["head", "received_attention"] = "head"
    """`received_attention`: a STAND-IN for backbones whose SigLIP was never published. Attention received in the
    tower's last used layer instead of the probe's, and mean features instead of the head's descriptors."""
    rounding: Literal["exact", "floor"] = "exact"  # `floor`: int(r S) tokens a frame as released, at least one
    min_segments: int = 8  # c
    tau: float = 0.9  # cosine of neighbouring frames below which a segment ends
    context_share: float = 0.4  # d: of a frame's tokens; the others are salient
    anchor_every: int = 4  # p: frames from one anchor frame of a segment to the next
    beta: float = 0.6  # least weight of the anchor in a merged token

    source: ClassVar[str] = "FastVID (arXiv 2503.11187), github.com/LunarShen/FastVID, as for LLaVA-OneVision"
    positions: ClassVar[Positions] = "original"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("min_segments", "anchor_every"):
            if getattr(self, name) < 1:
                raise MethodError(f"{name}={getattr(self, name)}, expected >= 1")
        for name, low in (("tau", -1), ("context_share", 0), ("beta", 0)):
            if not low <= getattr(self, name) <= 1:
                raise MethodError(f"{name}={getattr(self, name)}, expected {low} <= {name} <= 1")
        if self.head and self.saliency != "head":
            raise MethodError(f"head={self.head!r} is not read with saliency={self.saliency!r}; drop one of the two")

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"patches" if self.saliency == "head" else "received_attention"})

    def identity(self) -> dict[str, Any]:
        return {"head_sha256": fingerprint(self.head)} if self.head else {}

    def compress(self, video: VideoTokens, budget: int) -> Compressed:
        if budget >= len(video):
            return super().compress(video, budget)
        saliency, descriptors = self._look(video)
        return merge_video(video.features, saliency, self._plan(video, budget, descriptors), self.beta)

    def _head(self, device: torch.device) -> PoolingHead:
        if not self.head:
            raise MethodError(
                "fastvid scores by SigLIP's attention-pooling head, which a LLaVA-OneVision checkpoint does not hold: "
                f"give head= a folder or hub id of the SigLIP behind its tower ({PUBLISHED} for the published ones), "
                "or saliency='received_attention', a stand-in that is not FastVID"
            )
        return load_head(self.head, device)

    def _look(self, video: VideoTokens) -> tuple[Float[Tensor, "F S"], Float[Tensor, "F E"]]:
        """Saliency of every token, and one descriptor a frame."""
        if self.saliency == "received_attention":
            return video.received_attention, video.features.float().mean(1)
        attention, descriptors = self._head(video.features.device)(video.patches)
        return pool_attention(attention, video.grid), descriptors

    def kept_a_frame(self, slots: int) -> int:
        """K as released: int(r S) of a frame's `slots`, and at least one, where the release keeps none."""
        return max(int(slots * self.retention), 1)

    def _plan(self, video: VideoTokens, budget: int, descriptors: Float[Tensor, "F E"]) -> Plan:
        exact = self.rounding == "exact"
        kept = budget // video.frames if exact else self.kept_a_frame(video.tokens_per_frame)
        return make_plan(
            segment_lengths(transitions(descriptors), self.min_segments, self.tau),
            video.tokens_per_frame,
            kept,
            total=budget if exact else None,
            context_share=self.context_share,
            every=self.anchor_every,
        )

    def _count(self, video: VideoTokens) -> int:
        """Tokens that `compress` returns."""
        budget = self.budget(len(video))
        if self.rounding == "exact" or budget >= len(video):
            return budget
        return len(self._plan(video, budget, self._look(video)[1]))

    def slack(self, video: VideoTokens) -> int:
        return abs(self._count(video) - self.budget(len(video)))

    def schedule(self, video: VideoTokens, layers: int) -> list[int]:
        return [self._count(video)] * layers

    def compressor_flops(self, video: VideoTokens, budget: int) -> int:
        """The head, the distances within anchor frames, and the cosines of segments with their anchors."""
        if budget >= len(video):
            return 0
        plan = self._plan(video, budget, self._look(video)[1])
        width, left = video.features.shape[2], video.tokens_per_frame - plan.salient
        products, first = sum(map(bool, plan.context)) * left * left, 0
        for length in plan.lengths:
            products += length * left * sum(plan.context[first : first + length])
            first += length
        head = self._head(video.features.device).flops(*video.patches.shape[:2]) if self.saliency == "head" else 0
        return 2 * products * width + head

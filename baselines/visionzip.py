"""VisionZip for video: the most attended tokens of every frame, and the rest merged into a few contextual ones."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import normalize, pad

from cacovid.errors import MethodError
from cacovid.method import Method, Positions
from cacovid.records import Compressed, Need, VideoTokens
from cacovid.select import even_quota, ranks

Order = Literal["dominant_first", "raster"]

DOMINANT_SHARE = 54 / 64  # the authors' 54 + 10 of 64, and its multiples: 27 dominant tokens to 5 contextual ones
ROUNDINGS: dict[str, Callable[[float], int]] = {"round": round, "floor": floor, "ceil": ceil}
TIE = 1e-6
"""Cosines this near to the largest one are equal but for float32 rounding: the first of their targets wins."""


class Zipped(NamedTuple):
    """The output of all frames: the fields of `Compressed`, which say what they mean."""

    tokens: Float[Tensor, "K D"]
    position: Int64[Tensor, " K"]
    owner: Int64[Tensor, " N"]


def dominant_count(kept: int, share: float = DOMINANT_SHARE) -> int:
    """Dominant tokens among the `kept` ones of a frame: floor(kept * share); the others are contextual.

    >>> [dominant_count(kept) for kept in (1, 2, 20, 30, 40, 50)]
    [0, 1, 16, 25, 33, 42]
    """
    return floor(kept * share + 1e-9)  # 6/7 of 14 is 12, whatever the float product says


def dominant_mask(scores: Float[Tensor, "F S"], counts: list[int]) -> Bool[Tensor, "F S"]:
    """The `counts[f]` highest scores of each frame f; of equal scores the earlier token is dominant."""
    return ranks(scores.float()) < torch.tensor(counts, device=scores.device)[:, None]


def contextual_targets(dominant: Bool[Tensor, "F S"], counts: list[int]) -> Int64[Tensor, "F C"]:
    """Slots of the `counts[f]` targets of each frame f: every step-th of the tokens that are not dominant.

    step = max(1, floor(leftovers / count)), so that targets are even by rank among the leftovers, not on the grid,
    and a tail of less than `count` tokens may hold none. C = max(counts); a frame that has fewer is padded with -1.
    """
    wanted = torch.tensor(counts, device=dominant.device)[:, None]  # (F, 1)
    left = (~dominant).sum(1, keepdim=True)
    step = (left // wanted.clamp_min(1)).clamp_min(1)
    number = torch.arange(max(counts), device=dominant.device)  # (C,)
    leftovers = dominant.byte().argsort(dim=1, stable=True)  # (F, S), the leftovers in raster order, then the others
    slots = leftovers.gather(1, (number * step).clamp_max(dominant.shape[1] - 1))
    return slots.where(number < wanted, -1)


def nearest_target(metric: Float[Tensor, "F S d"], targets: Int64[Tensor, "F C"]) -> Int64[Tensor, "F S"]:
    """Number (column of `targets`) of the target whose metric has the largest cosine with each token's, C >= 1.

    Ties go to the first target. A zero vector has cosine 0 with everything. Cost: F S C d.
    """
    unit = normalize(metric.float(), dim=-1)
    goals = unit.gather(1, targets.clamp_min(0)[..., None].expand(-1, -1, unit.shape[-1]))  # (F, C, d)
    cosine = (unit @ goals.transpose(1, 2)).masked_fill((targets < 0)[:, None], float("-inf"))  # (F, S, C)
    number = torch.arange(targets.shape[1], device=targets.device)
    nearest = cosine >= cosine.amax(-1, keepdim=True) - TIE
    return number.where(nearest, targets.shape[1]).amin(-1)


def homes(
    dominant: Bool[Tensor, "F S"], targets: Int64[Tensor, "F C"], metric: Float[Tensor, "F S d"]
) -> Int64[Tensor, "F S"]:
    """Slot of the same frame that each token goes to: its own if it stays, its target's, or -1 = dropped.

    Tokens are dropped in frames without a target.
    """
    frames, slots = dominant.shape
    own = torch.arange(slots, device=dominant.device).expand(frames, -1)
    if targets.shape[1] == 0:
        return own.where(dominant, -1)
    # a target is nearest to itself only up to ties, and never merged; padding (-1) is written beside the frame
    stays = pad(dominant, (0, 1)).scatter(1, targets.where(targets >= 0, slots), True)[:, :-1]
    return own.where(stays, targets.gather(1, nearest_target(metric, targets)))


def zip_frames(
    features: Float[Tensor, "F S D"],
    scores: Float[Tensor, "F S"],
    metric: Float[Tensor, "F S d"],
    quota: list[int],
    share: float = DOMINANT_SHARE,
    order: Order = "dominant_first",
) -> Zipped:
    """`quota[f]` tokens of each frame f: dominant ones as they are, contextual ones = target + mean of its members.

    A target without members is passed as it is. Sums are float32, one scatter over all frames. How many rows there
    are hangs on `quota` alone, so that nothing waits for the device.
    """
    (frames, slots), device = scores.shape, scores.device
    dominants = [dominant_count(kept, share) for kept in quota]
    contextuals = [kept - n for kept, n in zip(quota, dominants, strict=True)]
    dominant = dominant_mask(scores, dominants)
    home = homes(dominant, contextual_targets(dominant, contextuals), metric)  # (F, S)

    slot = torch.arange(slots, device=device)
    start = slots * torch.arange(frames, device=device)[:, None]  # (F, 1)
    stays = home == slot
    later = slots * ~dominant if order == "dominant_first" else 0  # a frame's contextual tokens behind its dominant
    place = (2 * start + slot + later).masked_fill(~stays, 2 * frames * slots)
    position = place.flatten().argsort()[: sum(quota)]  # of what stays, in reading order

    row = torch.full((frames * slots + 1,), -1, device=device)  # output row of each flat position that stays
    row[position] = torch.arange(len(position), device=device)
    owner = row[(start + home).masked_fill(home < 0, frames * slots).flatten()]
    into = owner.masked_fill(stays.flatten(), -1)
    contextual = dominant.flatten()[position].byte().argsort(stable=True)[: sum(contextuals)]  # output rows
    return Zipped(_add_means(features.flatten(0, 1), position, contextual, into), position, owner)


def _add_means(
    rows: Float[Tensor, "N D"], kept: Int64[Tensor, " K"], contextual: Int64[Tensor, " C"], into: Int64[Tensor, " N"]
) -> Float[Tensor, "K D"]:
    """`rows[kept]`, its rows `contextual` plus the mean of the rows that go `into` them (-1 = into none)."""
    spare = len(contextual)  # one sum more, for what goes into none: cheaper than to gather the others first
    number = torch.full((len(kept) + 1,), spare, device=rows.device)  # its last entry is that of -1
    number[contextual] = torch.arange(spare, device=rows.device)
    sums = torch.zeros(spare + 1, rows.shape[1], device=rows.device).index_add_(0, number[into], rows.float())
    count = sums.new_zeros(spare + 1).index_add_(0, number[into], sums.new_ones(len(into)))
    tokens = rows[kept]
    means = sums[:spare] / count[:spare, None].clamp_min(1)
    tokens[contextual] = (tokens[contextual].float() + means).to(rows.dtype)
    return tokens


@dataclass(frozen=True, kw_only=True)
class VisionZip(Method):
    """Keep the tokens of each frame that its patches attend to most and merge the rest into contextual tokens.

    Dominant: the largest attention received in the tower's last used layer (mean over heads and over the queries of
    the same frame). Contextual: every n-th of the other tokens is a target; each remaining one joins the target with
    the largest cosine of vision keys (mean over heads), and a target becomes itself PLUS the mean of its members,
    about twice the norm of a token, as in the authors' code and in all ports. Nothing looks at the question.

    Ours differs: VisionZip compresses CLIP patches before the projector and scores by its CLS token; SigLIP has none,
    so we follow the ports for LLaVA-OneVision (scores, keys and features pooled alike, then 196 tokens a frame). The
    budget is met exactly over all frames (`rounding="exact"`) where the ports give every frame the same number; below
    one token a frame some frames keep none. Scores, cosines and sums stay float32, cosines within 1e-6 are ties, and
    zero keys are no NaN.
    """

    dominant_share: float = DOMINANT_SHARE  # of a frame's tokens, rounded down; DyToK takes 6 of 7, HoliTom this
    rounding: Literal["exact", "round", "floor", "ceil"] = "exact"
    """Tokens a frame of r * S: `exact` shares the budget out; the ports take whole ones, the same in every frame, at
    least one: `floor` and `ceil` miss the budget by less than one token a frame, `round` by at most half."""
    order: Order = "dominant_first"
    """Inside a frame: contextual tokens behind the dominant ones, or at the slots of their targets (Qwen-VL ports)."""
    positions: Positions = "compact"  # type: ignore[misc]  # `original` in the Qwen-VL ports

    source: ClassVar[str] = (
        "VisionZip (arXiv 2412.04467, github.com/dvlab-research/VisionZip), as ported to LLaVA-OneVision video in "
        "github.com/cokeshao/HoliTom and github.com/yu-lin-li/DyToK"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.dominant_share <= 1:
            raise MethodError(
                f"dominant_share={self.dominant_share}, expected 0 <= dominant_share <= 1: the share of the kept "
                f"tokens that is not merged"
            )
        if self.positions == "original" and self.order != "raster":
            raise MethodError(
                f"positions='original' with order={self.order!r} would give later tokens earlier positions; "
                f"use order='raster'"
            )

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"received_attention", "keys"})

    def quota(self, video: VideoTokens, budget: int) -> list[int]:
        """Tokens that each frame keeps."""
        if self.rounding == "exact":
            return even_quota(budget, video.frames)
        share = round(self.retention * video.tokens_per_frame, 6)  # 0.07 * 100 is 7, not one float above it
        return [max(ROUNDINGS[self.rounding](share), 1)] * video.frames

    @property
    def ascending(self) -> bool:  # type: ignore[override]
        return self.order == "raster"

    def slack(self, video: VideoTokens) -> int:
        budget = self.budget(len(video))
        return abs(sum(self.quota(video, budget)) - budget)

    def schedule(self, video: VideoTokens, layers: int) -> list[int]:
        return [sum(self.quota(video, self.budget(len(video))))] * layers

    def compress(self, video: VideoTokens, budget: int) -> Compressed:
        if budget >= len(video):
            return super().compress(video, budget)
        scores, keys = video.received_attention, video.keys
        expected = (video.frames, video.tokens_per_frame)
        if scores.shape != expected or keys.ndim != 4 or keys.shape[:2] != expected:
            raise MethodError(
                f"received_attention {tuple(scores.shape)} and keys {tuple(keys.shape)}, expected (F, S) and "
                f"(F, S, heads, head_dim) with F, S = {expected}: pool both like the features"
            )
        quota = self.quota(video, budget)
        metric = keys.float().mean(2)  # (F, S, head_dim)
        return Compressed(*zip_frames(video.features, scores, metric, quota, self.dominant_share, self.order))

    def compressor_flops(self, video: VideoTokens, budget: int) -> int:
        """The cosines of every token with its frame's targets."""
        if budget >= len(video):
            return 0
        targets = max(kept - dominant_count(kept, self.dominant_share) for kept in self.quota(video, budget))
        return 2 * len(video) * targets * video.keys.shape[-1]

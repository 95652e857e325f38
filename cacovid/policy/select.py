"""From the policy's logits to the tokens that stay: CaCoVID's selection at evaluation.

Everything whose size depends on the budget alone is a Python int, everything that depends on the logits stays a
tensor: there is no loop over tokens or frames and no host synchronisation, and it takes whole batches. For one
video the time goes into the number of operations more than into their arithmetic, and so they are kept few.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor

import torch
from jaxtyping import Bool, Float, Float64, Int32, Int64
from torch import Tensor

from cacovid.policy.network import keep_scores

FRAME_SHARPNESS = 3.0
"""The largest frame score after scaling: softmax shares differ by a factor of e^6 at most."""


@dataclass(frozen=True, slots=True)
class Quota:
    """How many tokens a selection keeps, and in which way.

    keep: all tokens; important: those by importance, the other ones evenly spaced; scale: what the frame shares
    are multiplied by before rounding; cap: most of a frame's tokens by importance; ceiling: largest frame share.
    """

    keep: int
    important: int
    scale: int
    cap: int
    ceiling: float

    @classmethod
    def of(
        cls,
        retention: float,
        frames: int,
        tokens_per_frame: int,
        importance_share: float,
        frame_cap: float,
        keep: int | None = None,
    ) -> "Quota":
        """The release's counts for a retention ratio r of T frames of S tokens.

        importance_share: a in [0, 1]; frame_cap: c, as a share of a frame's tokens (1.5 r in the release).
        `keep` is floor(r T S) unless it is given.
        """
        total = frames * tokens_per_frame
        keep = floor(retention * total) if keep is None else keep
        return cls(
            keep=keep,
            important=min(keep, floor(importance_share * retention * total)),
            scale=round(importance_share * retention * total),
            cap=int(importance_share * tokens_per_frame * frame_cap),
            ceiling=frame_cap / (frames * retention),
        )

    def most(self, frames: int) -> int:
        """The largest count that `allocate` can give a frame: the cap, or an even share where that is larger."""
        return max(1, self.cap, ceil(self.important / frames))


def allocate(scores: Float[Tensor, "B T"], quota: Quota) -> Bool[Tensor, "B T V"]:
    """The tokens by importance that each frame gets: True at its first places, `quota.important` in every row.

    Shares are a softmax of the scaled frame scores, clipped and renormalised; counts are rounded (half to even)
    and clipped to [1, cap]. What is too many is then taken one at a time from the largest count, what is too few
    is given to the smallest, the first of equals: in closed form, places have an order in which they are filled.
    """
    frames, most = scores.shape[1], quota.most(scores.shape[1])
    if quota.important == 0:
        return torch.zeros((*scores.shape, most), dtype=torch.bool, device=scores.device)
    levels, held, free = _turns(frames, most, quota.cap, scores.device)
    largest = torch.linalg.vector_norm(scores, torch.inf, 1, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)
    share = (FRAME_SHARPNESS * scores / largest).softmax(1).clamp(1 / (2 * frames), quota.ceiling)
    share = share / share.sum(1, keepdim=True)
    count = (share * quota.scale).round()
    turn = torch.where(count.unsqueeze(2) > levels, held, free)  # (B, T, V)
    # Not `kthvalue`, which refuses deterministic mode on CUDA.
    last = turn.flatten(1).topk(quota.important, largest=False, sorted=False).values.amax(1)
    return turn <= last.view(-1, 1, 1)


def select(
    token_logits: Float[Tensor, "B N 2"], frame_logits: Float[Tensor, "B T 2"], quota: Quota
) -> Bool[Tensor, "B N"]:
    """True at the tokens that stay. Of equal scores the earlier token stays.

    In each frame the tokens of the highest keep - drop logit, as many as `allocate` says; then, of all tokens
    not yet kept, in order over the whole video, those at round(linspace(0, rest - 1, m)).

    `quota.keep` tokens stay wherever `quota.cap` is within a frame; the release allows larger caps, and keeps
    too few when all is by importance. Ours differs: the release ranks softmax(0.001 s), in which nearly equal
    scores can tie; ours ranks s itself.
    """
    (batch, frames), total = frame_logits.shape[:2], token_logits.shape[1]
    scores = keep_scores(token_logits).view(batch, frames, -1)  # (B, T, S)
    kept = _highest(scores, allocate(keep_scores(frame_logits), quota)).flatten(1)  # (B, N)
    if quota.important == quota.keep:
        return kept
    place = (~kept).cumsum(1)  # 1, 2, ... at those that are left
    if quota.most(frames) <= scores.shape[2]:
        # Every row keeps `important` so far, and so every row has the same places to fill.
        chosen = _same_places(total - quota.important, quota.keep, total, kept.device)
        return kept | chosen.index_select(0, place.flatten()).view_as(kept)
    return kept | _places(place[:, -1:], quota.keep, total).gather(1, place)


def _highest(scores: Float[Tensor, "B T S"], first: Bool[Tensor, "B T V"]) -> Bool[Tensor, "B T S"]:
    """True at the highest scores of each frame, as many as are True in `first`; the earlier of equal ones.

    Earlier tokens are raised by less than a float32 can show, since a stable sort takes several times as long. That
    is exact for scores of float32 or less: unequal ones differ by 2^-24 of their size or more, a frame of S tokens
    is raised by S * 2^-50 of it at most, and float64 holds both.
    """
    size = scores.shape[2]
    # Bounds outside float32's, so that equal infinities and equal zeros can be told apart as well.
    exact = scores.double().clamp(-(2.0**200), 2.0**200)
    keys = exact.addcmul(exact.abs().clamp_min(2.0**-200), _tilt(size, scores.device))
    order = keys.topk(min(size, first.shape[2])).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(2, order, first)


def _places(left: Int64[Tensor, "B 1"], keep: int, total: int) -> Bool[Tensor, "B N1"]:
    """True at the places, counted from 1, of the left tokens that make each row up to `keep`, evenly spaced.

    The positions are those of `evenly_spaced`, for counts that are tensors.
    """
    missing = keep - total + left
    number = torch.arange(keep, dtype=torch.float64, device=left.device)
    # Exact: a quotient of integers that float64 holds is x.5 only where it is so, and is rounded half to even.
    place = (number * (left - 1) / (missing - 1).clamp_min(1)).round_().long() + 1
    chosen = torch.zeros((len(left), total + 1), dtype=torch.bool, device=left.device)
    # Where fewer are missing, the rest of the row lands on place 0, before the first one that is left.
    return chosen.scatter_(1, place * (number < missing), True)


# What follows depends on shapes alone, and is made once for each. Not in inference mode, whose tensors could not be
# used later where gradients are taken.


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _turns(
    frames: int, most: int, cap: int, device: torch.device
) -> tuple[Float[Tensor, " V"], Int32[Tensor, "T V"], Int32[Tensor, "T V"]]:
    """What a frame's count must be above to hold each of its places, and the turns in which places are filled.

    The first place is always held and none from the cap on, which clips counts to [1, cap]. Of places held, the first
    of each frame have the first turns; of each frame's n-th the last frame's, so that the first frame loses its own
    first. Then come the places not held, of each frame's n-th the first frame's first.
    """
    # float32, since comparing bfloat16 counts with integers would round the integers.
    levels = torch.arange(most, dtype=torch.float32, device=device)
    levels[:1], levels[cap:] = -torch.inf, torch.inf
    free = torch.arange(most * frames, dtype=torch.int32, device=device).view(most, frames).T.contiguous()
    return levels, free.flip(0), free + most * frames


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _tilt(size: int, device: torch.device) -> Float64[Tensor, " S"]:
    """By which share of its size the score of each token of a frame is raised: earlier ones by more."""
    return torch.arange(size - 1, -1, -1, dtype=torch.float64, device=device) * 2.0**-50


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _same_places(left: int, keep: int, total: int, device: torch.device) -> Bool[Tensor, " N1"]:
    """`_places` where all rows have as many tokens left."""
    return _places(torch.full((1, 1), left, device=device), keep, total)[0]


def positions_of(mask: Bool[Tensor, "B N"], keep: int) -> Int64[Tensor, "B K"]:
    """The flat positions of `keep` True entries a row, ascending, without asking the device how many there are."""
    return mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :keep]

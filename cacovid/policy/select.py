"""From the policy's logits to the tokens that stay: CaCoVID's selection at evaluation.

Everything whose size depends on the budget alone is a Python int, everything that depends on the logits stays a
tensor: there is no loop over tokens or frames and no host synchronisation, and it takes whole batches.
"""

from dataclasses import dataclass
from math import ceil, floor

import torch
from jaxtyping import Bool, Float, Int64
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


def allocate(scores: Float[Tensor, "B T"], quota: Quota) -> Int64[Tensor, "B T"]:
    """Tokens by importance that each frame gets; every row sums to `quota.important`.

    Shares are a softmax of the scaled frame scores, clipped and renormalised; counts are rounded (half to even)
    and clipped to [1, cap]. What is too many is then taken one at a time from the largest count, what is too few
    is given to the smallest, the first of equals: in closed form, a level that counts are cut down or filled up to.
    """
    frames = scores.shape[1]
    largest = scores.abs().amax(1, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)
    scores = FRAME_SHARPNESS * scores / largest
    share = scores.softmax(1).clamp(1 / (2 * frames), quota.ceiling)
    share = share / share.sum(1, keepdim=True)
    count = (share * quota.scale).round().long().clamp(1, quota.cap)
    too_many = count.sum(1, keepdim=True) > quota.important  # (B, 1)
    levels = torch.arange(quota.most(frames) + 1, device=scores.device)
    each = count[..., None]
    bounded = torch.where(too_many[..., None], torch.minimum(each, levels), torch.maximum(each, levels))  # (B, T, V)
    totals = bounded.sum(1)  # (B, V), rising with the level
    # The highest level that does not ask for too many.
    level = ((totals <= quota.important).sum(1, keepdim=True) - 1).clamp_min(0)
    settled = bounded.gather(2, level[..., None].expand(-1, frames, 1))[..., 0]
    rest = quota.important - settled.sum(1, keepdim=True)
    # What is left over is given first to last, or taken first to last, so that the last ones keep it.
    able = torch.where(too_many, count > level, count <= level)
    place = able.cumsum(1) - torch.where(too_many, able.sum(1, keepdim=True) - rest, 0)
    return settled + (able & (place > 0) & (place <= rest))


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
    frames = frame_logits.shape[1]
    scores = keep_scores(token_logits).unflatten(1, (frames, -1))  # (B, T, S)
    count = allocate(keep_scores(frame_logits), quota)
    kept = _highest(scores, count, min(scores.shape[2], quota.most(frames))).flatten(1)  # (B, N)
    return kept | _spread(kept, quota.keep) if quota.important < quota.keep else kept


def _highest(scores: Float[Tensor, "B T S"], count: Int64[Tensor, "B T"], most: int) -> Bool[Tensor, "B T S"]:
    """True at the `count` highest scores of each frame, the earlier of equal ones; `most` is enough of a frame to see.

    By the lowest score that stays, since a stable sort of whole frames takes longer.
    """
    lowest = scores.topk(most, -1).values.gather(2, (count - 1).clamp(0, most - 1)[..., None])
    above, equal = scores > lowest, scores == lowest
    wanted = count[..., None] - above.sum(2, keepdim=True)
    return above | (equal & (equal.cumsum(2) <= wanted))


def _spread(kept: Bool[Tensor, "B N"], keep: int) -> Bool[Tensor, "B N"]:
    """True at what makes each row up to `keep`, evenly spaced among the tokens that are not in `kept`.

    The positions are those of `evenly_spaced`, for counts that are tensors.
    """
    total, others = kept.shape[1], ~kept
    place_of = others.cumsum(1)  # 1, 2, ... at those that are left
    left = place_of[:, -1:]  # (B, 1)
    missing = keep - total + left
    number = torch.arange(keep, dtype=torch.float64, device=kept.device)
    # Exact: a quotient of integers that float64 holds is x.5 only where it is so, and is rounded half to even.
    place = (number * (left - 1) / (missing - 1).clamp_min(1)).round_().long() + 1
    chosen = torch.zeros((len(kept), total + 1), dtype=torch.bool, device=kept.device)
    # Where fewer are missing, the rest of the row lands on place 0, before the first one that is left.
    chosen.scatter_(1, place * (number < missing), True)
    return chosen.gather(1, place_of) & others


def positions_of(mask: Bool[Tensor, "B N"], keep: int) -> Int64[Tensor, "B K"]:
    """The flat positions of `keep` True entries a row, ascending, without asking the device how many there are."""
    return mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :keep]

"""FastVID's plan of a video: its segments, and how many tokens of which frame are kept, all of it whole numbers.

It follows from the F - 1 cosines of neighbouring frames, which come to the host once.
"""

from math import ceil
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from cacovid.select import even_quota


class Plan(NamedTuple):
    """How many tokens of each frame stay, and which frames are merged together."""

    lengths: list[int]  # frames of each segment
    salient: int  # A, tokens that every frame keeps as they are
    context: list[int]  # (F) merged tokens that stand in each frame: its anchor frames hold them, the others 0

    def __len__(self) -> int:
        """Tokens that enter the LLM."""
        return len(self.context) * self.salient + sum(self.context)


def transitions(descriptors: Float[Tensor, "F E"]) -> Float[Tensor, " T"]:
    """Cosine of each frame's descriptor with the next one's, float32, T = F - 1; with a zero vector it is 0."""
    unit = normalize(descriptors.float(), dim=-1)
    return (unit[1:] * unit[:-1]).sum(-1)


def segment_lengths(transition: Float[Tensor, " T"], min_segments: int, tau: float) -> list[int]:
    """Frames of each segment: cuts at the `min_segments` - 1 smallest transitions and at all below `tau` (strictly).

    At least `min_segments` segments whatever the video, or one a frame. Of equal transitions the earlier is cut.

    >>> segment_lengths(Tensor([0.99, 0.5, 0.98, 0.95, 0.97]), 3, 0.9)
    [2, 2, 2]
    """
    cut = transition < tau
    cut[transition.argsort(stable=True)[: min_segments - 1]] = True
    ends = [frame + 1 for frame, ends_here in enumerate(cut.tolist()) if ends_here]
    return [end - start for start, end in zip([0, *ends], [*ends, len(cut) + 1], strict=True)]


def anchor_quota(length: int, context: int, every: int, room: int, *, whole: bool) -> list[int]:
    """`context` tokens of a segment shared out to its anchor frames: every `every`-th, counted back from the last.

    A frame has `room` tokens to give; where the anchor frames cannot hold so many, they stand closer, and
    `context` <= `length` * `room` always fits. With `whole` all get the same number and the rest is lost, as in the
    release (which stops where there is no room); otherwise nothing is lost.

    >>> anchor_quota(5, 35, 4, 178, whole=True), anchor_quota(5, 35, 4, 178, whole=False)
    ([17, 0, 0, 0, 17], [17, 0, 0, 0, 18])
    """
    every = next((e for e in range(min(every, length), 1, -1) if ceil(length / e) * room >= context), 1)
    count = ceil(length / every)
    shares = [context // count] * count if whole else even_quota(context, count)
    quota = [0] * length
    quota[(length - 1) % every :: every] = shares
    return quota


def make_plan(
    lengths: list[int], slots: int, kept: int, *, total: int | None, context_share: float, every: int
) -> Plan:
    """Of `kept` tokens a frame of `slots`, int(`context_share` * kept) are merged ones and the others salient.

    Args:
        total: tokens of the whole video, `kept` = total // F; what the division leaves over is merged tokens, spread
            evenly. None = as the release counts: the same for every frame, less what `anchor_quota` loses.
    """
    context = int(kept * context_share)
    salient, frames = kept - context, sum(lengths)
    shares = [context] * frames if total is None else even_quota(total - frames * salient, frames)
    quota: list[int] = []
    for length in lengths:
        share = sum(shares[len(quota) : len(quota) + length])
        quota += anchor_quota(length, share, every, slots - salient, whole=total is None)
    return Plan(lengths, salient, quota)

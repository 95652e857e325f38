"""FlashVID's segments of frames, and its tokens of every frame that are both attended to and unlike each other."""

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize, pad

from cacovid.select import ranks

Selector = Literal["v2", "v1", "attention", "diversity"]
"""What a token is worth to the selection. `v2`: distance x attention x relevance to its segment; `v1`: distance x
attention; `diversity`: distance alone; `attention`: no distances. Called attn_div_v2, attn_div, div, attn there."""


def segment_of_frame(means: Float[Tensor, "F D"], threshold: float, at_least: int) -> Int64[Tensor, " F"]:
    """Number of the segment that each frame is in, from the mean token of every frame.

    A new segment starts where the cosine from one frame to the next is below `threshold`. Where that gives fewer than
    `at_least` segments, the smallest other cosines are cut, too: of equal ones the earlier. So the cuts are the
    smallest max(natural, at_least - 1) cosines. Source: flashvid/utils.py:segment, additional_segment.
    """
    unit = normalize(means.float(), dim=-1)
    likeness = (unit[:-1] * unit[1:]).sum(-1)  # (F-1)
    cut = (likeness < threshold) | (ranks(-likeness) < at_least - 1)
    return pad(cut.long().cumsum(0), (1, 0))


def cosines(a: Float[Tensor, "B n D"], b: Float[Tensor, "B m D"]) -> Float[Tensor, "B n m"]:
    """Cosine of every pair, float32; a zero vector has cosine 0 with everything.

    Lengths divide the products, not the vectors, which are many times larger.
    """
    a_inverse, b_inverse = (v.norm(dim=-1).clamp_min(1e-12).reciprocal() for v in (a, b))
    return (a @ b.transpose(1, 2)).mul_(a_inverse[..., None]).mul_(b_inverse[:, None])


def segment_sums(values: Tensor, segment: Int64[Tensor, " F"]) -> Tensor:
    """For every frame the sum of `values` (one row a frame) over the frames of its segment."""
    return torch.zeros_like(values).index_add_(0, segment, values)[segment]


def relevance(x: Float[Tensor, "F S D"], segment: Int64[Tensor, " F"]) -> Float[Tensor, "F S"]:
    """Mean, over the frames of its segment, of the dot product of a token with a frame's mean token.

    By linearity that is one dot product with the segment's mean. It may be zero or negative.
    """
    frames = segment_sums(torch.ones_like(segment), segment)
    means = segment_sums(x.mean(1), segment) / frames[:, None]
    return (x @ means[..., None]).squeeze(-1)


def column_weights(
    x: Float[Tensor, "F S D"], attention: Float[Tensor, "F S"] | None, segment: Int64[Tensor, " F"], selector: Selector
) -> Float[Tensor, "F S"]:
    """What multiplies the distances to each candidate; `attention` None is for `diversity` alone.

    The authors' factor 1e6 on the attention changes no comparison and is left out.
    """
    if attention is None:
        return x.new_ones(x.shape[:2])
    return attention.float() * relevance(x, segment) if selector == "v2" else attention.float()


def select_diverse(
    x: Float[Tensor, "F S D"], weights: Float[Tensor, "F S"], count: int, distinct: bool
) -> Int64[Tensor, "F n"]:
    """`count` slots of each frame in the order they are picked; the first n are what a count of n would give.

    Distance of candidate j from a picked token i: (1 - cosine) * weights[j], not symmetric. First the candidate whose
    second smallest distance from all tokens is largest (the smallest is that from itself), then again and again the
    one whose smallest distance from the picked ones is largest; ties go to the lower slot. `distinct` False: a token
    may be picked again where no candidate is above 0, as in the authors' v2.
    Cost: F S S D, then `count` steps of F S. Source: flashvid/token_selection.py.
    """
    frames, slots, _ = x.shape
    if count == 0:
        return torch.empty(frames, 0, dtype=torch.int64, device=x.device)
    distance = 1 - cosines(x, x)
    distance.diagonal(dim1=1, dim2=2).zero_()
    distance *= weights[:, None]  # [f, i, j]
    frame = torch.arange(frames, device=x.device)
    pick = distance.kthvalue(min(2, slots), dim=1).values.argmax(1)
    nearest = torch.full_like(weights, torch.inf)
    picks = [pick]
    for _ in range(1, count):
        nearest = torch.minimum(nearest, distance[frame, pick])
        if distinct:
            nearest.scatter_(1, pick[:, None], -torch.inf)  # stays: a minimum never rises
        pick = nearest.argmax(1)
        picks.append(pick)
    return torch.stack(picks, 1)


def select_tokens(
    x: Float[Tensor, "F S D"],
    attention: Float[Tensor, "F S"] | None,
    segment: Int64[Tensor, " F"],
    count: int,
    selector: Selector,
    distinct: bool = True,
) -> Int64[Tensor, "F n"]:
    """`count` slots of each frame in the order in which they are picked, by any of the four selections; x float32."""
    if selector == "attention":
        assert attention is not None, "read from the video by every selector but `diversity`"
        return attention.float().argsort(dim=1, descending=True, stable=True)[:, :count]
    return select_diverse(x, column_weights(x, attention, segment, selector), count, distinct or selector != "v2")

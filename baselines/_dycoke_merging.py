"""DyCoke's temporal token merging (TTM): which frames are whole, and which tokens of the others changed."""

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Loop = Literal["released", "fixed"]
Order = Literal["raster", "similarity"]

WINDOW = 4  # frames a group, one of them whole: the authors' constant
LOST = -1


def references(frames: int, loop: Loop = "released", window: int = WINDOW) -> list[int]:
    """The frame that each frame is compared with: its own number = kept whole, `LOST` = not there at all.

    In a window of four, frame 1 is compared with 0, 2 with 0, 3 with 2. A wider window, a power of two, goes on in
    the same way: frame f with f minus its lowest set bit. `loop="released"` has the bounds of the official loops
    (llava/model/llava_arch.py:dycole_ttm): frame F-2 stays whole where four divides F, and an odd F loses its last
    frame. One to four frames, which stop the official code, follow the same rule; a single frame is whole.

    >>> references(8), references(8, "fixed"), references(5)
    ([0, 0, 0, 2, 4, 4, 6, 6], [0, 0, 0, 2, 4, 4, 4, 6], [0, 0, 0, 2, -1])
    """
    lowest = [f % window & -(f % window) for f in range(frames)]  # 0 at the start of a window
    out = [f - bit for f, bit in enumerate(lowest)]
    if loop == "released" and frames % 4 == 0:
        out[-2] = frames - 2
    if loop == "released" and frames % 2 and frames > 1:
        out[-1] = LOST
    return out


def whole(refs: list[int]) -> int:
    """Number of frames that are kept whole."""
    return sum(ref == f for f, ref in enumerate(refs))


def kept_at(rate: float, size: int) -> int:
    """Tokens left of `size` at the pruning rate K or P: truncated in double precision, as the authors do.

    >>> kept_at(0.7, 196), kept_at(0.9, 10)
    (58, 0)
    """
    return int((1 - rate) * size)


def fill(refs: list[int], size: int, shares: list[int]) -> list[int]:
    """Tokens to keep in each frame: all of a whole one, none of a lost one, `shares` in turn of the pruned ones."""
    rest = iter(shares)
    return [size if ref == f else 0 if ref == LOST else min(next(rest), size) for f, ref in enumerate(refs)]


def similarity(features: Float[Tensor, "F S D"], refs: list[int]) -> Float[Tensor, "F S"]:
    """Cosine of every token with the same place in its reference frame, float32; 0 in frames without one.

    Equal tokens have exactly 1 (all sums are taken in one order), so that their ties are ties; a zero vector has 0.
    Frame by frame in buffers that are used again: the products of all frames at once leave the processor's caches.
    """
    rows = features.detach()  # what is written in place cannot be differentiated
    left, right, product = rows.new_empty(3, *rows.shape[1:], dtype=torch.float32)

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return torch.mul(a, b, out=product).sum(-1)

    def wide(row: Tensor, buffer: Tensor) -> Tensor:
        return row if row.dtype == torch.float32 else buffer.copy_(row)

    squared = torch.stack([dot(x, x) for x in (wide(row, left) for row in rows)])  # (F, S)
    out = torch.zeros_like(squared)
    for f, ref in enumerate(refs):
        if ref not in (f, LOST):
            norms = (squared[f] * squared[ref]).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
            out[f] = dot(wide(rows[f], left), wide(rows[ref], right)) / norms
    return out


def changed(
    features: Float[Tensor, "F S D"], refs: list[int], quota: list[int], order: Order = "raster"
) -> Int64[Tensor, " K"]:
    """Flat positions of the `quota[f]` tokens of each frame f that are least similar to its reference.

    Of equal similarities the earlier place is kept; a frame without a reference keeps its first places. `order` is
    that inside a pruned frame: ascending places, or least similar first. Frames are in time order.
    """
    size = features.shape[1]
    ranked = similarity(features, refs).argsort(dim=1, stable=True)  # (F, S)
    ranked = ranked + size * torch.arange(len(refs), device=ranked.device)[:, None]
    columns = torch.cat([torch.arange(f * size, f * size + kept) for f, kept in enumerate(quota)])
    kept = ranked.flatten()[columns.to(ranked.device)]
    return kept.sort().values if order == "raster" else kept

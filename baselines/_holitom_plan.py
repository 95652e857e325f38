"""HoliTom's plan of a video: its temporal windows, which slots are static in each, how many rows stay of what.

All of it follows from one small table, the similarity of every slot to itself in the next frame, and is worked out
on the host: the features are looked at once before and once after. T = F - 1 transitions, W windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

TINY = 1e-8
"""Norms below this count as this: the cosine of a zero vector is 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What happens to the slots of one video. All tensors are on the host."""

    windows: Int64[Tensor, "W 2"]  # first and last frame, both inside
    static: Bool[Tensor, "W S"]  # slots that one merged row a window stands for, before they are clustered
    merged: Sequence[int]  # (W) rows that the static slots of each window are clustered into
    single: Sequence[int]  # (F) dynamic tokens kept of each frame
    reduced: int  # tokens that the merge over time alone takes away

    @property
    def window(self) -> Int64[Tensor, " F"]:
        """Window of every frame."""
        first, last = self.windows.T
        return torch.arange(len(self.windows)).repeat_interleave(last - first + 1)

    def __len__(self) -> int:
        """Rows that enter the LLM."""
        return sum(self.merged) + sum(self.single)


def transition_similarity(features: Float[Tensor, "F S D"]) -> Float[Tensor, "T S"]:
    """Cosine of each slot's token with the one in the same slot of the next frame, float32."""
    x = features.float()  # in half precision 0.8 is one of few values: whole slots would tie with the threshold
    norms = x.norm(dim=-1).clamp_min(TINY)
    # No matrix product: it loses digits, and may run in TF32. Rounded below 1, so that tau = 1 merges nothing.
    return ((x[1:] * x[:-1]).sum(-1) / (norms[1:] * norms[:-1])).clamp(-1, 1)


def static_runs(similarity: Float[Tensor, "T S"], tau: float) -> Int64[Tensor, "T S"]:
    """Number of transitions in a row, up to and with this one, whose similarity is above `tau` (strictly)."""
    places = torch.arange(1, len(similarity) + 1, device=similarity.device)[:, None]
    broken = torch.where(similarity > tau, 0, places).cummax(0).values  # last transition that was not static
    return places - broken


def choose_windows(runs: Int64[Tensor, "T S"], max_window: int) -> tuple[Int64[Tensor, "W 2"], int]:
    """The cut into windows of at most `max_window` frames that merges most tokens over time, and how many.

    A window of l + 1 frames saves l tokens for each slot that is static throughout: one whose run at the window's
    last transition is at least l. Dynamic program over the last window, shorter ones first: they win ties.
    """
    transitions = len(runs)
    lengths = torch.zeros(transitions, transitions + 1, dtype=torch.int64)
    lengths.scatter_add_(1, runs, torch.ones_like(runs))  # slots by the length of their run
    at_least = lengths.flip(1).cumsum(1).flip(1)
    gains = at_least * torch.arange(transitions + 1)  # [t, l]: a window of l transitions that ends with t
    best = torch.zeros(transitions + 2, dtype=torch.int64)  # [f]: tokens saved in the first f frames
    choice = [0]  # [f]: transitions of the last window, if f is its last frame
    for t in range(transitions):
        saved = (best[: t + 2].flip(0) + gains[t, : t + 2])[:max_window]
        choice.append(int(saved.argmax()))  # the first of the largest
        best[t + 2] = saved[choice[-1]]
    windows, last = [], transitions
    while last >= 0:
        windows.append((last - choice[last], last))
        last -= choice[last] + 1
    return torch.tensor(windows[::-1]), int(best[-1])


def static_slots(runs: Int64[Tensor, "T S"], windows: Int64[Tensor, "W 2"]) -> Bool[Tensor, "W S"]:
    """Slots whose every transition inside the window is static; none in a window of one frame."""
    first, last = windows.T
    into = torch.cat([runs.new_zeros(1, runs.shape[1]), runs])  # [f]: run that ends with the transition into f
    length = (last - first)[:, None]
    return (length > 0) & (into[last] >= length)


def release_weakest(
    static: Bool[Tensor, "W S"], windows: Int64[Tensor, "W 2"], similarity: Float[Tensor, "T S"], missing: int
) -> Bool[Tensor, "W S"]:
    """`static` without the least similar slots, so many that at least `missing` tokens more remain to choose from.

    Least similar = smallest similarity on any transition of the window; of equal ones the earlier goes first.
    """
    weakest = torch.zeros(static.shape)
    for row, (first, last) in zip(weakest, windows.tolist(), strict=True):
        if last > first:
            row.copy_(similarity[first:last].amin(0))
    window, slot = static.nonzero(as_tuple=True)
    order = weakest[window, slot].argsort(stable=True)
    window, slot = window[order], slot[order]
    regained = (windows[:, 1] - windows[:, 0])[window].cumsum(0)
    count = int((regained < missing).sum()) + 1
    out = static.clone()
    out[window[:count], slot[:count]] = False
    return out


def released_share(retention: float, total: int, reduced: int) -> float:
    """r' of the release: what must be kept of the tokens that the merge over time left, at most all."""
    return min(retention / ((total - reduced) / total), 1)


def exact_rows(static: list[int], dynamic: list[int], first: list[int], budget: int) -> tuple[list[int], list[int]]:
    """`budget` rows spread over the static part of each window and the dynamic part of each frame, by their sizes.

    Shares are rounded on the running sum, in the order in which the LLM reads them: no part gets more than it has,
    and what rounding leaves over is spread over time.
    """
    before = dict(zip(first, static, strict=True))  # a window's static part comes before its first frame
    parts = [part for f, size in enumerate(dynamic) for part in (before.get(f, 0), size)]
    total = sum(parts)
    ends, cut = 0, [0]
    for part in parts:
        ends += part
        cut.append((2 * ends * budget + total) // (2 * total))
    rows = [b - a for a, b in pairwise(cut)]
    return [rows[2 * f] for f in first], rows[1::2]


def make_plan(
    similarity: Float[Tensor, "T S"], retention: float, budget: int | None, *, tau: float, max_window: int
) -> Plan:
    """Windows, static slots and row counts of one video; `budget` None counts as the release does.

    The release keeps ceil(n r') of the n dynamic tokens of a frame and round(n r') rows of the n static slots of a
    window, half to even, with r' for the whole video; where that is nothing at all, one row stays.
    With a budget the same shares are rounded together, so that it is met. Where the merge over time leaves fewer
    tokens than that, the least static slots are not merged.
    """
    similarity = similarity.cpu()
    frames, slots = similarity.shape[0] + 1, similarity.shape[1]
    runs = static_runs(similarity, tau)
    windows, reduced = choose_windows(runs, max_window)
    static = static_slots(runs, windows)
    total = frames * slots
    if budget is not None and budget > total - reduced:
        static = release_weakest(static, windows, similarity, budget - (total - reduced))
    sizes = static.sum(1)
    lengths = windows[:, 1] - windows[:, 0] + 1
    reduced = int((sizes * (lengths - 1)).sum())
    still, moving = sizes.tolist(), (slots - sizes).repeat_interleave(lengths).tolist()
    first = windows[:, 0].tolist()
    if budget is None:
        share = released_share(retention, total, reduced)
        merged, single = [round(n * share) for n in still], [ceil(n * share) for n in moving]
        if any(merged) or any(single):
            return Plan(windows, static, merged, single, reduced)
    merged, single = exact_rows(still, moving, first, 1 if budget is None else budget)
    return Plan(windows, static, merged, single, reduced)

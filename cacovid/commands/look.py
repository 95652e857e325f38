"""What became of every video token of one sample, as plain arrays that can be drawn or printed.

Axes: F frames, S = H*W tokens a frame.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cacovid.budget import Spent

if TYPE_CHECKING:
    from cacovid.backbones import Answer

DROPPED, CUT, KEPT = 0, 1, 2
"""Fate of a token: dropped before the LLM, cut inside it, still there after the last layer's cut."""

COLOURS = 6


@dataclass(frozen=True, slots=True, eq=False)
class Fates:
    """What became of every input token."""

    fate: NDArray[np.int8]  # (F, S) DROPPED, CUT or KEPT
    group: NDArray[np.int64]  # (F, S) number of the surviving token it was merged into; -1 = not merged
    stands: NDArray[np.int64]  # (F, S) number of the surviving token that stands for this very cell; -1 = none
    entering: NDArray[np.int64]  # (F,) tokens of each frame that entered the LLM, by the cell they stand for
    kept: NDArray[np.int64]  # (F,) the same after the last layer's cut
    colour: dict[int, int]  # group -> a number below COLOURS, unlike its neighbours'


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """One sample, ready to be drawn."""

    frames: NDArray[np.uint8]  # (F, height, width, 3) RGB, as read
    indices: tuple[int, ...]  # frame numbers in the file
    seconds: tuple[float, ...]  # presentation times
    grid: tuple[int, int]  # (H, W) tokens a frame
    covered: float  # share of the frame's height and width that the grid covers, from the top left corner
    fates: Fates
    spent: Spent
    retention: float  # as asked
    method: str  # with its fields
    video: str
    question: str
    answer: str
    evidence: NDArray[np.bool_] | None  # (F, S) cells that hold the answer, where that is known

    @property
    def evidence_recall(self) -> float | None:
        """Share of the evidence cells that a token stands for after the last cut, as the records count it.

        A cell that was merged into another cell's token does not count.
        """
        if self.evidence is None or not self.evidence.any():
            return None
        return float((self.fates.stands[self.evidence] >= 0).mean())


def fates(answer: "Answer", grid: tuple[int, int]) -> Fates:
    """Follow every input token through `compress` and the cuts inside the LLM."""
    owner = answer.compressed.owner.cpu().numpy()  # (N,)
    position = answer.compressed.position.cpu().numpy()  # (K,)
    left = answer.kept.cpu().numpy()
    shape = (len(owner) // (grid[0] * grid[1]), grid[0] * grid[1])  # (F, S)
    survives = np.isin(position, left)  # (K,)
    owned = owner >= 0
    fate = np.full(len(owner), DROPPED, dtype=np.int8)
    fate[owned] = np.where(survives[owner[owned]], KEPT, CUT)

    merged = np.bincount(owner[owned], minlength=len(position)) > 1  # (K,)
    # A row that took in one token only, but stands for another cell, is a move: it is drawn as a merge, too.
    merged |= owner[position] != np.arange(len(position))
    group = np.full(len(owner), -1, dtype=np.int64)
    group[owned] = np.where((merged & survives)[owner[owned]], owner[owned], -1)
    stands = np.full(len(owner), -1, dtype=np.int64)
    stands[position[survives]] = np.flatnonzero(survives)

    def a_frame(flat: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(flat // shape[1], minlength=shape[0])

    return Fates(
        fate.reshape(shape),
        group.reshape(shape),
        stands.reshape(shape),
        a_frame(position),
        a_frame(left),
        colouring(group.reshape(shape[0], *grid)),
    )


def colouring(group: NDArray[np.int64]) -> dict[int, int]:
    """A number below COLOURS for each group in (F, H, W); neighbours in space and time differ where they can."""
    pairs = [(group[:-1], group[1:]), (group[:, :-1], group[:, 1:]), (group[:, :, :-1], group[:, :, 1:])]
    touching: dict[int, set[int]] = {number: set() for number in np.unique(group[group >= 0]).tolist()}
    for one, other in pairs:
        meet = (one != other) & (one >= 0) & (other >= 0)
        for a, b in set(zip(one[meet].tolist(), other[meet].tolist(), strict=True)):
            touching[a].add(b)
            touching[b].add(a)
    chosen: dict[int, int] = {}
    used = [0] * COLOURS
    for number, around in touching.items():
        taken = {chosen[n] for n in around if n in chosen}
        free = [c for c in range(COLOURS) if c not in taken] or list(range(COLOURS))
        chosen[number] = min(free, key=used.__getitem__)
        used[chosen[number]] += 1
    return chosen


def covered_share(config: object) -> float:
    """Share of the squashed frame's side that the tower's patches cover: 14-pixel patches reach 378 of 384."""
    vision = getattr(config, "vision_config", None)
    image, patch = getattr(vision, "image_size", None), getattr(vision, "patch_size", None)
    return image // patch * patch / image if image and patch else 1.0


def cell_edges(cells: int, pixels: int, covered: float) -> NDArray[np.int64]:
    """(cells + 1,) pixel borders of the grid's rows or columns on an axis of `pixels`.

    >>> cell_edges(4, 100, 1.0).tolist()
    [0, 25, 50, 75, 100]
    """
    return np.round(np.linspace(0, pixels * covered, cells + 1)).astype(np.int64)


def printable(text: str) -> str:
    """One line: runs of white space become one blank, control characters their escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(text.split()))

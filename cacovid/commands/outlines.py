"""Borders between cells as line segments, in cell units: x to the right, y down, origin at the top left."""

import numpy as np
from numpy.typing import NDArray

Segments = NDArray[np.float64]
"""(n, 2, 2): n segments, two ends, (x, y)."""

_SIDES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # (down, right): towards the top, bottom, left, right neighbour


def borders(label: NDArray[np.int64], which: NDArray[np.bool_], inset: float = 0.0) -> Segments:
    """Every side on which a cell of `which` (H, W) meets another label (H, W) or the edge of the grid.

    With `inset`, in cells, a border lies inside its own cell, so that neighbours show theirs side by side.
    """
    height, width = label.shape
    padded = np.pad(label, 1, constant_values=np.iinfo(label.dtype).min)

    def same(down: int, right: int) -> NDArray[np.bool_]:
        """(H, W): the neighbour in that direction has the same label."""
        return padded[1 + down : 1 + down + height, 1 + right : 1 + right + width] == label

    parts = []
    for down, right in _SIDES:
        y, x = np.nonzero(which & ~same(down, right))
        middle = np.stack([x + 0.5 + right * (0.5 - inset), y + 0.5 + down * (0.5 - inset)], axis=-1)  # (n, 2)
        along = np.array([abs(down), abs(right)])
        ends = []
        for sign in (-1, 1):  # a border goes on to the cell's corner only where the cell beside goes on, too
            beside = same(sign * abs(right), sign * abs(down))[y, x]
            ends.append(middle + sign * along * (0.5 - inset * ~beside)[:, None])
        parts.append(np.stack(ends, axis=1))
    return np.concatenate(parts)


def seams(which: NDArray[np.bool_]) -> Segments:
    """Borders between two cells that both belong to `which` (H, W)."""
    y, x = np.nonzero(which[:-1] & which[1:])
    across = np.stack([np.stack([x, y + 1], -1), np.stack([x + 1, y + 1], -1)], axis=1)
    y, x = np.nonzero(which[:, :-1] & which[:, 1:])
    down = np.stack([np.stack([x + 1, y], -1), np.stack([x + 1, y + 1], -1)], axis=1)
    return np.concatenate([across, down]).astype(np.float64)

"""One frame with the fate of its tokens painted on it: pixels alone, no figure.

Kept cells stay as they are, dropped ones lose colour and light, cells cut inside the LLM are hatched, too.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cacovid.commands.look import CUT, KEPT, cell_edges

SLATE = np.array([38, 42, 50], dtype=np.float32)
"""What dropped cells fade to, RGB."""
HATCH = np.array([86, 180, 233], dtype=np.float32)
"""Lines over cells that were cut inside the LLM, RGB."""
HATCH_STEP = 9  # pixels from one line to the next


def shade(
    frame: NDArray[np.uint8],
    fate: NDArray[np.int8],
    grid: tuple[int, int],
    covered: float,
    width: int,
) -> NDArray[np.uint8]:
    """The frame, `width` pixels wide in its own aspect, dimmed cell by cell.

    Args:
        frame: (height, width, 3) RGB.
        fate: (S,) of each cell, row by row.
        grid: (H, W).
        covered: share of height and width that the grid spans; what lies beyond is dropped.
    """
    height = max(1, round(width * frame.shape[0] / frame.shape[1]))
    # Small frames are enlarged in whole pixels, large ones averaged down.
    how = Image.Resampling.NEAREST if frame.shape[1] < width else Image.Resampling.BOX
    picture = np.asarray(Image.fromarray(frame).resize((width, height), how), dtype=np.float32)
    cells = spread(fate, grid, (height, width), covered)
    grey = picture @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    dim = 0.26 * grey[..., None] + 0.16 * picture + 0.58 * SLATE
    y, x = np.indices(cells.shape)
    line = (cells == CUT) & ((x + y) % HATCH_STEP < 2)
    dim[line] = 0.45 * dim[line] + 0.55 * HATCH
    return np.where((cells == KEPT)[..., None], picture, dim).round().astype(np.uint8)


def spread(values: NDArray[np.int8], grid: tuple[int, int], size: tuple[int, int], covered: float) -> NDArray[np.int8]:
    """Values of the cells (S,) as pixels (height, width); 0 beyond the grid."""
    rows, columns = (np.diff(cell_edges(n, pixels, covered)) for n, pixels in zip(grid, size, strict=True))
    cells = np.asarray(values).reshape(grid).repeat(rows, axis=0).repeat(columns, axis=1)
    out = np.zeros(size, dtype=cells.dtype)
    out[: cells.shape[0], : cells.shape[1]] = cells
    return out

"""Spatial downsampling: coarser grids instead of fewer tokens."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool3d

from cacovid.method import Method
from cacovid.records import Compressed, VideoTokens
from cacovid.select import even_quota

Cells = tuple[int, int, int]  # pooled size: frames, rows, columns


def grid_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Grids from 1 x 1 to height x width, one row or column more each time, as near to the shape as integers allow.

    On a square grid rows and columns differ by at most one: 1x1, 1x2, 2x2, 2x3, 3x3, ...
    """
    rows, columns = 1, 1
    sizes = [(rows, columns)]
    while (rows, columns) != (height, width):
        if (rows * width >= columns * height and columns < width) or rows == height:
            columns += 1
        else:
            rows += 1
        sizes.append((rows, columns))
    return sizes


@dataclass(frozen=True, kw_only=True)
class Downsample(Method):
    """Average-pool every frame to a smaller grid.

    Two neighbouring grid sizes are mixed evenly over the frames so that the total comes as near to the budget
    as possible from below. Below one token a frame, runs of frames are averaged to one token each. Pooling is
    adaptive average pooling in float32; where its cells overlap, a token belongs to the cell that its centre is
    in. Features at full size are passed bit-equal.
    """

    source: ClassVar[str] = "no paper: reference point; the operator is LLaVA's own spatial pooling taken further"

    def slack(self, video: VideoTokens) -> int:
        """Tokens under the budget: less than the step between two grid sizes."""
        budget = self.budget(len(video))
        return budget - sum(f * a * b for f, a, b in self.plan(video, budget))

    def plan(self, video: VideoTokens, budget: int) -> list[Cells]:
        """Pooled sizes, run of frames by run of frames."""
        if budget < video.frames:
            return [(budget, 1, 1)]
        sizes = grid_sizes(*video.grid)
        for (a, b), (c, d) in pairwise(sizes):
            if video.frames * c * d > budget:
                larger = (budget - video.frames * a * b) // (c * d - a * b)  # frames that get the larger grid
                return [(1, c, d) if more else (1, a, b) for more in even_quota(larger, video.frames)]
        return [(1, *sizes[-1])] * video.frames

    def compress(self, video: VideoTokens, budget: int) -> Compressed:
        plan = self.plan(video, budget)
        frames = video.frames if len(plan) == 1 else 1  # frames of the video that each entry covers
        parts = zip(video.features.split(frames), plan, strict=True)
        tokens = torch.cat([_pool(part, video.grid, cells) for part, cells in parts])  # (K, D)
        position, owner, before = [], [], 0
        for first, cells in zip(range(0, video.frames, frames), plan, strict=True):
            centre, cell = _map((frames, *video.grid), cells)
            position.append(first * video.tokens_per_frame + centre)
            owner.append(before + cell)
            before += len(centre)
        device = video.features.device
        return Compressed(tokens, torch.cat(position).to(device), torch.cat(owner).to(device))


def _pool(features: Tensor, grid: tuple[int, int], cells: Cells) -> Tensor:
    """Average (f, S, D) to (cells, D)."""
    if features.shape[0] * features.shape[1] == cells[0] * cells[1] * cells[2]:
        return features.flatten(0, 1)
    volume = features.movedim(-1, 0).unflatten(2, grid)  # (D, f, H, W)
    pooled = adaptive_avg_pool3d(volume.float()[None], cells)[0]  # (D, *cells)
    return pooled.flatten(1).T.to(features.dtype)


def _map(size: Cells, cells: Cells) -> tuple[Int64[Tensor, " K"], Int64[Tensor, " n"]]:
    """Flat position nearest to each cell's centre, and the cell that holds each position's centre."""
    middles, homes = [], []
    for n, k in zip(size, cells, strict=True):
        middles.append((2 * torch.arange(k) + 1) * n // (2 * k))
        homes.append((2 * torch.arange(n) + 1) * k // (2 * n))
    f, y, x = torch.meshgrid(*middles, indexing="ij")
    centre = (f * size[1] + y) * size[2] + x
    f, y, x = torch.meshgrid(*homes, indexing="ij")
    return centre.flatten(), ((f * cells[1] + y) * cells[2] + x).flatten()

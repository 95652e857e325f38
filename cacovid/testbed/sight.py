"""Stage "sight": vision tower and projector learn to say, for each cell, the symbols that are in it.

The targets are dense labels of every cell, which the world knows. A linear probe on the pooled tokens is
trained with the tower and thrown away; the projector then learns the sums of word embeddings that the
language model already reads.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import decord
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from cacovid.testbed.families import WIDTH, Family, VideoModel
from cacovid.testbed.scene import CELLS, GRID
from cacovid.testbed.symbols import BACKGROUND, NO_COLOUR
from cacovid.testbed.training import Run, mixed_precision, share, worker

_JUDGE_EVERY = 50


def read_frames(path: Path, number: int) -> NDArray[np.uint8]:
    """`number` frames (number, H, W, 3) of a video, read the way that evaluations read them."""
    reader = decord.VideoReader(str(path), num_threads=1)
    return reader.get_batch(np.round(np.linspace(0, len(reader) - 1, number)).astype(int)).asnumpy()


def load_pixels(family: Family, paths: Sequence[Path], processor: Any) -> Tensor:
    """What the vision tower sees of the videos, (V, MOMENTS, channels, H, W), as bytes to save memory.

    The video processor resizes, and normalises bytes to [-1, 1]; `to_float` goes back there.
    """
    rows = []
    for path in tqdm(paths, desc="Reading videos", unit="video"):
        values = family.pixels(processor, read_frames(path, family.frames))
        rows.append(((values + 1) * 127.5).round().clamp(0, 255).to(torch.uint8))
    return torch.stack(rows)


def to_float(pixels: Tensor) -> Tensor:
    """Bytes of `load_pixels` as the processor's normalised values."""
    return pixels.float() / 127.5 - 1


def jitter(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Moments (n, C, H, W) with the cells turned, sheared, scaled and moved a little, two in three of them.

    Without it the tower learns the train split's handwriting by heart and misreads one unseen digit in six.
    """
    number, channels, height, width = pixels.shape
    down, right = height // GRID, width // GRID
    cells = pixels.view(number, channels, GRID, down, GRID, right).permute(0, 2, 4, 1, 3, 5)
    cells = cells.reshape(-1, channels, down, right)
    # Columns: turn, shear, scale down, scale right, shift right, shift down (in half cells).
    drawn = rng.uniform(-1, 1, (len(cells), 6)) * (0.25, 0.2, 0.15, 0.15, 0.2, 0.2)
    turn, shear, tall, wide, x, y = (drawn * (rng.random((len(cells), 1)) < 2 / 3)).T
    cos, sin = np.cos(turn), np.sin(turn)
    matrices = np.stack(
        [(1 + wide) * cos, shear - sin, x, sin, (1 + tall) * cos, y],
        axis=-1,
    ).reshape(-1, 2, 3)
    grid = nn.functional.affine_grid(torch.from_numpy(matrices).to(cells), list(cells.shape), align_corners=False)
    cells = nn.functional.grid_sample(cells, grid, padding_mode="reflection", align_corners=False)
    return cells.view(number, GRID, GRID, channels, down, right).permute(0, 3, 1, 4, 2, 5).reshape(pixels.shape)


class Probe(nn.Module):
    """Reads glyph, colour, row and column of its cell off a pooled token; only trains the tower."""

    SIZES = (BACKGROUND + 2, NO_COLOUR + 1, GRID, GRID)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.Linear(width, sum(self.SIZES))

    def forward(self, tokens: Tensor) -> tuple[Tensor, ...]:
        return self.heads(tokens).float().split(self.SIZES, dim=-1)


class SightStage:
    """Frames drawn at random from the train videos; cross-entropy of every cell's four labels."""

    def __init__(
        self,
        family: Family,
        model: VideoModel,
        probe: Probe,
        pixels: Tensor,
        labels: tuple[Tensor, Tensor],
        run: Run,
        device: torch.device,
        frames: int = 32,
    ) -> None:
        self.family, self.model, self.probe, self.run, self.device = family, model, probe, run, device
        self.frames = share(frames)
        self.pixels = pixels.flatten(0, 1)
        self.labels = [part.view(-1, CELLS) for part in labels]

    def step(self, number: int) -> Tensor:
        rng = np.random.default_rng([12, number, worker()[0]])
        chosen = torch.from_numpy(rng.integers(0, len(self.pixels), self.frames))
        pixels = jitter(to_float(self.pixels[chosen].to(self.device)), rng)
        # Another brightness and contrast for each frame.
        gain = torch.from_numpy(rng.uniform(0.85, 1.15, (self.frames, 1, 1, 1))).float().to(self.device)
        shift = torch.from_numpy(rng.uniform(-0.1, 0.1, (self.frames, 1, 1, 1))).float().to(self.device)
        patch = torch.arange(CELLS).expand(self.frames, CELLS)
        targets = [self.labels[0][chosen], self.labels[1][chosen], patch // GRID, patch % GRID]
        with mixed_precision(self.device):
            found = self.probe(self.family.frame_tokens(self.model, pixels * gain + shift))
        losses = [
            nn.functional.cross_entropy(logits.flatten(0, 1), target.to(self.device).flatten())
            for logits, target in zip(found, targets, strict=True)
        ]
        loss = torch.stack(losses).sum()
        if (number + 1) % _JUDGE_EVERY == 0:
            thing = targets[0] < BACKGROUND
            right = [
                (f.argmax(-1).cpu() == t)[thing].float().mean().item() for f, t in zip(found, targets, strict=True)
            ]
            self.run.log(
                number + 1,
                loss=round(loss.item(), 4),
                glyph=round(right[0], 3),
                colour=round(right[1], 3),
            )
        return loss


def train_sight(
    family: Family,
    model: VideoModel,
    pixels: Tensor,
    labels: tuple[Tensor, Tensor],
    folder: Path,
    steps: int,
    device: torch.device,
) -> None:
    """Train vision tower and projector in place, or load what an earlier run trained."""
    probe = Probe(WIDTH).to(device)
    run = Run("sight", folder, {**family.sight(model), "probe": probe}, peak=1e-3, steps=steps)
    run.fit(SightStage(family, model, probe, pixels, labels, run, device).step, warmup=50, decay=0.5)

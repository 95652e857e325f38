"""Symbolic video tokens: what the vision side should say, as sums of the language model's own embeddings.

The language model learns to answer from these first, with no pixels anywhere; then vision tower and
projector learn to produce them. A cell's token is glyph word + colour word + row + column; rows, columns,
clutter and background have no word and get an embedding of their own.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from cacovid.testbed.families import VideoModel
from cacovid.testbed.scene import CELLS, GRID, MOMENTS, Scene
from cacovid.testbed.words import COLOUR_NAMES, GLYPHS

BACKGROUND, CLUTTER = len(GLYPHS), len(GLYPHS) + 1
"""Glyph classes after the shapes and digits."""
NO_COLOUR = len(COLOUR_NAMES)
"""Colour class of background and clutter."""


def scene_labels(scene: Scene) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Glyph class and colour class of every cell, each (MOMENTS * CELLS,), frame-major."""
    glyph = np.full(MOMENTS * CELLS, BACKGROUND, dtype=np.int64)
    colour = np.full(MOMENTS * CELLS, NO_COLOUR, dtype=np.int64)
    for thing in scene.objects:
        places = [frame * CELLS + patch for frame, patch in thing.cells()]
        glyph[places] = GLYPHS.index(thing.glyph)
        colour[places] = COLOUR_NAMES.index(thing.colour)
    for frame, patch in scene.clutter_cells():
        glyph[frame * CELLS + patch] = CLUTTER
    return glyph, colour


class Symbols(nn.Module):
    """Turns cell labels into the sums of embeddings that stand for them."""

    word_ids: Tensor
    colour_ids: Tensor

    def __init__(self, tokenizer: PreTrainedTokenizerFast, width: int, std: float = 0.05) -> None:
        super().__init__()
        words = tokenizer([f" {word}" for word in GLYPHS]).input_ids
        colours = tokenizer([f" {name}" for name in COLOUR_NAMES]).input_ids
        self.register_buffer("word_ids", torch.tensor(words).squeeze(1))
        self.register_buffer("colour_ids", torch.tensor(colours).squeeze(1))
        self.other = nn.Parameter(torch.randn(2, width) * std)
        self.row = nn.Parameter(torch.randn(GRID, width) * std)
        self.column = nn.Parameter(torch.randn(GRID, width) * std)

    def words(self, model: VideoModel) -> tuple[Tensor, Tensor]:
        """The embeddings of all glyph classes and of all colour classes."""
        table = model.model.language_model.embed_tokens.weight
        assert isinstance(table, Tensor)
        glyphs = torch.cat([table[self.word_ids], self.other])
        return glyphs, torch.cat([table[self.colour_ids], torch.zeros_like(self.other[:1])])

    def forward(self, model: VideoModel, glyph: Tensor, colour: Tensor, place: Tensor) -> Tensor:
        """glyph, colour, place (flat video positions), each (n,) -> (n, D)."""
        glyphs, colours = self.words(model)
        patch = place % CELLS
        return glyphs[glyph] + colours[colour] + self.row[patch // GRID] + self.column[patch % GRID]


def label_batch(scenes: Sequence[Scene]) -> tuple[Tensor, Tensor]:
    """Labels of several scenes, each (B, MOMENTS * CELLS)."""
    pairs = [scene_labels(scene) for scene in scenes]
    return torch.from_numpy(np.stack([p[0] for p in pairs])), torch.from_numpy(np.stack([p[1] for p in pairs]))

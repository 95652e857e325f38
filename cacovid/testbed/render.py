"""Draw a scene as frames: textured background, objects that glide between the moments, clutter."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from cacovid.testbed.glyphs import Mask, digit_indices, digit_mask, shape_mask
from cacovid.testbed.scene import GRID, MOMENTS, Scene, SceneObject
from cacovid.testbed.words import COLOURS, DIGITS

CELL: Final = 32
"""Pixels a cell."""
SIDE: Final = GRID * CELL
STEP: Final = 4
"""Raw frames from one moment to the next."""
RAW_FRAMES: Final = (MOMENTS - 1) * STEP + 1
"""So that round(linspace(0, RAW_FRAMES - 1, MOMENTS)) hits exactly the moments."""
REACH: Final = 1
"""Raw frames before and behind a moment that still show it: half a step later the next one begins."""
FPS: Final = 15

Frames = NDArray[np.uint8]


def _texture(rng: np.random.Generator) -> NDArray[np.float32]:
    """A background (SIDE, SIDE, 3): slow waves and grain in a dull mid tone."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / SIDE
    base = rng.uniform(95, 150)
    tint = rng.uniform(-12, 12, size=3)
    picture = np.zeros((SIDE, SIDE), dtype=np.float32)
    for _ in range(4):
        fx, fy = rng.uniform(-9, 9, size=2)
        picture += rng.uniform(4, 13) * np.sin(2 * np.pi * (fx * x + fy * y + rng.uniform())).astype(np.float32)
    picture += rng.normal(0, 9, size=(SIDE // 2, SIDE // 2)).repeat(2, axis=0).repeat(2, axis=1).astype(np.float32)
    return (base + picture[..., None] + tint).astype(np.float32)


def _clutter_patch(rng: np.random.Generator) -> tuple[NDArray[np.float32], Mask]:
    """A coloured mosaic without a form: as bright as an object, and nothing that a question can name."""
    size = int(rng.integers(22, 29))
    tiles = rng.integers(3, 6)
    names = rng.permutation(len(COLOURS))[: int(rng.integers(2, 5))]
    palette = np.array(list(COLOURS.values()), dtype=np.float32)[names]
    mosaic = palette[rng.integers(0, len(palette), size=(tiles, tiles))]
    at = (np.arange(size) * tiles) // size
    holes = rng.random((tiles, tiles)) < 0.75
    return mosaic[at][:, at], holes[at][:, at].astype(np.float32)


def _picture(thing: SceneObject, split: int) -> tuple[NDArray[np.float32], Mask, int, int]:
    """Colours (s, s, 3), opacity (s, s) and the offset (down, right) in the cell, of one object."""
    rng = np.random.default_rng(thing.look)
    if thing.role == "clutter":
        colours, mask = _clutter_patch(rng)
    else:
        size = int(rng.integers(24, 29))
        if thing.glyph in DIGITS:
            choice = digit_indices(thing.glyph, split)
            mask = digit_mask(int(choice[rng.integers(0, len(choice))]), size)
        else:
            mask = shape_mask(thing.glyph, size)
        shade = rng.uniform(0.9, 1.0)
        colours = np.broadcast_to(np.array(COLOURS[thing.colour], dtype=np.float32) * shade, (*mask.shape, 3))
    room = CELL - mask.shape[0]
    middle = room / 2
    shift = rng.integers(-2, 3, size=2)
    down, right = (int(np.clip(round(middle + s), 0, room)) for s in shift)
    return colours, mask, down, right


def _place(thing: SceneObject, raw: int) -> tuple[float, float] | None:
    """Where an object's cell is (rows, columns) at a raw frame, or None when it is not there.

    It comes half a step before its first moment and goes half a step after its last one.
    """
    time = raw / STEP - thing.start
    last = len(thing.path) - 1
    if not -0.5 <= time < last + 0.5:
        return None
    time = min(max(time, 0.0), float(last))
    i = min(int(time), last)
    j = min(i + 1, last)
    part = time - i
    (r0, c0), (r1, c1) = thing.path[i], thing.path[j]
    return r0 + (r1 - r0) * part, c0 + (c1 - c0) * part


def render(scene: Scene, raw_frames: list[int] | None = None) -> Frames:
    """The frames (n, SIDE, SIDE, 3) of a scene, all of them or the raw frames asked for."""
    background = _texture(np.random.default_rng([*scene.seed, 104729]))
    pictures = [(thing, *_picture(thing, scene.seed[0])) for thing in (*scene.clutter, *scene.objects)]
    wanted = list(range(RAW_FRAMES)) if raw_frames is None else raw_frames
    frames = np.empty((len(wanted), SIDE, SIDE, 3), dtype=np.uint8)
    for n, raw in enumerate(wanted):
        canvas = background.copy()
        for thing, colours, mask, down, right in pictures:
            place = _place(thing, raw)
            if place is None:
                continue
            top, left = round(place[0] * CELL) + down, round(place[1] * CELL) + right
            spot = canvas[top : top + mask.shape[0], left : left + mask.shape[1]]
            spot += mask[..., None] * (colours - spot)
        frames[n] = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return frames


def moment_frames() -> list[int]:
    """The raw frames that show the moments."""
    return [moment * STEP for moment in range(MOMENTS)]

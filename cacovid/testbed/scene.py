"""A scene: which object is in which cell at which moment, drawn from a seed.

The world is a GRID x GRID board watched at MOMENTS instants. At an instant an object fills exactly one
cell, and a cell holds at most one object, so that every pooled video token of the model is one cell and
the evidence of a question is a set of (frame, patch) pairs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cacovid.testbed.words import COLOUR_NAMES, DIGITS, DIRECTIONS, SHAPES

GRID: Final = 5
MOMENTS: Final = 16
CELLS: Final = GRID * GRID
WORLD_VERSION: Final = "2"
"""Part of the cache path of the videos; raised whenever the same seed would give another video."""

MIN_OBJECT_CELLS: Final = 84
"""More than twice the 40 tokens that are kept at r = .10."""
MIN_UNASKED_CELLS: Final = 172
"""Object and clutter cells a video: minus at most 12 asked for, at least 160 (40%) are distraction."""
MAX_EVIDENCE: Final = 12
"""3% of the 400 tokens."""

STILL_MOMENTS: Final = 3
"""Length of the stretch in which nothing changes."""


@dataclass(frozen=True)
class SceneObject:
    """One object: a shape or a digit of one colour and the cells that it visits.

    `path` has one (row, column) a moment, from moment `start` on. `role` says why it is in the scene:
    "group", "mover", "before", "after", "digit", "shape" or "clutter". `look` seeds its size, its jitter
    and, for digits and clutter, its picture.
    """

    glyph: str
    colour: str
    start: int
    path: tuple[tuple[int, int], ...]
    role: str
    look: int
    direction: str = ""

    @property
    def end(self) -> int:
        """The last moment at which the object is there."""
        return self.start + len(self.path) - 1

    def cells(self) -> list[tuple[int, int]]:
        """The (frame, patch) pairs that the object fills, in time order; patch = row * GRID + column."""
        return [(self.start + i, r * GRID + c) for i, (r, c) in enumerate(self.path)]


@dataclass(frozen=True)
class Scene:
    """All objects of one video; `still` is the first moment of the still stretch."""

    seed: tuple[int, int]
    objects: tuple[SceneObject, ...]
    clutter: tuple[SceneObject, ...]
    pairs: tuple[tuple[SceneObject, SceneObject], ...]
    groups: tuple[tuple[SceneObject, ...], ...]
    still: int

    def object_cells(self) -> list[tuple[int, int]]:
        """Every (frame, patch) that holds an object (clutter is none), frame-major."""
        return sorted(cell for thing in self.objects for cell in thing.cells())

    def clutter_cells(self) -> list[tuple[int, int]]:
        """Every (frame, patch) that holds clutter, frame-major."""
        return sorted(cell for thing in self.clutter for cell in thing.cells())


@dataclass
class _Board:
    """The occupancy while a scene is being filled: a place is taken for one object at a time."""

    rng: np.random.Generator
    still: int
    taken: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((MOMENTS, GRID, GRID), dtype=bool))

    def quiet(self, start: int, end: int) -> bool:
        """Whether an object that comes at `start` and goes after `end` leaves the still stretch still."""
        inside = range(self.still, self.still + STILL_MOMENTS)
        return start not in inside[1:] and end not in inside[:-1]

    def free_path(self, start: int, path: tuple[tuple[int, int], ...]) -> bool:
        return not any(self.taken[start + i, r, c] for i, (r, c) in enumerate(path))

    def take(self, thing: SceneObject) -> SceneObject:
        for i, (r, c) in enumerate(thing.path):
            self.taken[thing.start + i, r, c] = True
        return thing

    def span(self, low: int, high: int, tries: int = 60) -> Iterator[tuple[int, int]]:
        """Random (start, end) spans of `low` to `high` moments that respect the still stretch."""
        for _ in range(tries):
            length = int(self.rng.integers(low, high + 1))
            start = int(self.rng.integers(0, MOMENTS - length + 1))
            if self.quiet(start, start + length - 1):
                yield start, start + length - 1

    def still_cell(self, start: int, end: int) -> tuple[int, int] | None:
        """A random cell that is free from `start` to `end`."""
        free = np.flatnonzero(~self.taken[start : end + 1].any(axis=0).reshape(-1))
        return None if len(free) == 0 else divmod(int(self.rng.choice(free)), GRID)

    def look(self) -> int:
        return int(self.rng.integers(0, 2**31))


class _NoRoomError(Exception):
    """The board is too full for the next object: the scene is drawn again."""


def _place_static(board: _Board, glyph: str, colour: str, role: str, low: int, high: int) -> SceneObject:
    for start, end in board.span(low, high):
        cell = board.still_cell(start, end)
        if cell is not None:
            path = (cell,) * (end - start + 1)
            return board.take(SceneObject(glyph, colour, start, path, role, board.look()))
    raise _NoRoomError


def _place_group(board: _Board, glyph: str, colour: str, size: int) -> tuple[SceneObject, ...]:
    """`size` equal objects that come together, stay for three moments and go together."""
    for start, end in board.span(3, 3):
        free = np.flatnonzero(~board.taken[start : end + 1].any(axis=0).reshape(-1))
        if len(free) >= size:
            cells = [divmod(int(i), GRID) for i in board.rng.choice(free, size, replace=False)]
            return tuple(
                board.take(SceneObject(glyph, colour, start, (cell,) * 3, "group", board.look())) for cell in cells
            )
    raise _NoRoomError


def _place_mover(board: _Board, glyph: str, colour: str, direction: str) -> SceneObject:
    """An object that goes one cell a moment, three to five cells in all, in one direction."""
    dr, dc = DIRECTIONS[direction]
    for start, end in board.span(3, GRID):
        length = end - start + 1
        if end >= board.still and start <= board.still + STILL_MOMENTS - 1:
            continue
        room = GRID - length + 1
        along, across = int(board.rng.integers(0, room)), int(board.rng.integers(0, GRID))
        first = along if dr + dc > 0 else GRID - 1 - along
        path = tuple((first + dr * i, across) if dr else (across, first + dc * i) for i in range(length))
        if board.free_path(start, path):
            return board.take(SceneObject(glyph, colour, start, path, "mover", board.look(), direction))
    raise _NoRoomError


def _place_pair(board: _Board, glyphs: tuple[str, str], colour: str) -> tuple[SceneObject, SceneObject]:
    """One object gives way to another of its colour in the same cell, from one moment to the next."""
    for start, end in board.span(6, 10):
        change = start + int(board.rng.integers(3, end - start - 1))
        if not (board.quiet(start, change - 1) and board.quiet(change, end)):
            continue
        if change - start > 5 or end - change + 1 > 5:
            continue
        cell = board.still_cell(start, end)
        if cell is not None:
            first = SceneObject(glyphs[0], colour, start, (cell,) * (change - start), "before", board.look())
            then = SceneObject(glyphs[1], colour, change, (cell,) * (end - change + 1), "after", board.look())
            return board.take(first), board.take(then)
    raise _NoRoomError


def _fill(rng: np.random.Generator, seed: tuple[int, int]) -> Scene:
    board = _Board(rng, still=int(rng.integers(1, MOMENTS - STILL_MOMENTS)))
    shapes = [SHAPES[i] for i in rng.permutation(len(SHAPES))]
    # An object that gives way to another has its colour; apart from that, no two shapes share one.
    order = [COLOUR_NAMES[i] for i in rng.permutation(len(COLOUR_NAMES))]
    paint = dict(zip(shapes, [*order[:2], order[2], order[2], order[3], order[3], *order[4:]], strict=True))
    digits = [DIGITS[i] for i in rng.permutation(len(DIGITS))]
    digit_colours = [COLOUR_NAMES[i] for i in rng.permutation(len(COLOUR_NAMES))]

    groups = tuple(_place_group(board, glyph, paint[glyph], int(rng.integers(1, 5))) for glyph in shapes[:2])
    pairs = tuple(_place_pair(board, (a, b), paint[a]) for a, b in (shapes[2:4], shapes[4:6]))
    movers = [_place_mover(board, glyph, paint[glyph], str(rng.choice(list(DIRECTIONS)))) for glyph in shapes[6:9]]
    objects = [thing for group in groups for thing in group] + [thing for pair in pairs for thing in pair] + movers
    for digit, colour in zip(digits[:6], digit_colours[:6], strict=True):
        objects.append(_place_static(board, digit, colour, "digit", 4, 7))
    for glyph in shapes[9:11]:
        objects.append(_place_static(board, glyph, paint[glyph], "shape", 4, 8))
    spare = [(d, c, "digit") for d, c in zip(digits[6:8], digit_colours[6:8], strict=True)]
    spare.append((shapes[11], paint[shapes[11]], "shape"))
    while sum(len(thing.path) for thing in objects) < MIN_OBJECT_CELLS:
        if not spare:
            raise _NoRoomError
        objects.append(_place_static(board, *spare.pop(0), 5, 8))
    clutter: list[SceneObject] = []
    while board.taken.sum() < MIN_UNASKED_CELLS:
        clutter.append(_place_static(board, "clutter", "", "clutter", 3, 10))
    return Scene(seed, tuple(objects), tuple(clutter), pairs, groups, board.still)


def make_scene(seed: tuple[int, int]) -> Scene:
    """The scene of a seed, a pair (split number, video number); the same seed always gives the same scene."""
    for attempt in range(1000):
        try:
            return _fill(np.random.default_rng([*seed, attempt]), seed)
        except _NoRoomError:
            continue
    raise AssertionError(f"no scene fits for seed {seed}")

"""What a scene's cells tell, of each cell and of each named object: labels for the probes (see probes.py).

A question says once what was right; these say it at every cell of every object and at every name.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from cacovid.testbed.scene import CELLS, MOMENTS, Scene, SceneObject
from cacovid.testbed.words import COLOUR_NAMES, DIRECTIONS, GLYPHS, NUMBERS

UNKNOWN: Final = -100
"""The label of a cell that has no such fact, or whose fact is not to be known from the cells kept."""

STILL: Final = len(DIRECTIONS)
"""Direction class of an object that stays where it is."""

FACTS: Final = {
    "direction": len(DIRECTIONS) + 1, "count": len(NUMBERS), "before": len(GLYPHS), "start": MOMENTS, "seen": 12,
}  # fmt: skip
"""Fact -> number of classes.

direction: where the object of this cell came from, from its second cell on.
count: how many objects are in this group, from its second moment on.
before: the glyph that was in this cell before the object that is there now.
start: the moment at which the object of this cell came.
seen: how many cells before this one, among those kept, hold the same glyph; what counting starts from.
"""


def _places(thing: SceneObject) -> NDArray[np.int64]:
    return np.array([frame * CELLS + patch for frame, patch in thing.cells()])


def make_facts(scene: Scene, kept: NDArray[np.bool_]) -> dict[str, NDArray[np.int64]]:
    """The facts of a scene of which only the cells `kept` (MOMENTS * CELLS,) are to be seen.

    A fact is UNKNOWN where the cells that it hangs on are not kept.
    """
    facts = {name: np.full(MOMENTS * CELLS, UNKNOWN, dtype=np.int64) for name in FACTS}
    directions = list(DIRECTIONS)
    for thing in scene.objects:
        places = _places(thing)
        seen = kept[places]
        earlier = np.cumsum(seen) - seen > 0
        direction = directions.index(thing.direction) if thing.direction else STILL
        facts["direction"][places[earlier]] = direction
        if seen[0]:
            facts["start"][places] = thing.start
    for glyph in {thing.glyph for thing in scene.objects}:
        same = np.sort(np.concatenate([_places(thing) for thing in scene.objects if thing.glyph == glyph]))
        facts["seen"][same] = np.minimum(np.cumsum(kept[same]) - kept[same], FACTS["seen"] - 1)
    for first, then in scene.pairs:
        if kept[_places(first)].any():
            facts["before"][_places(then)] = GLYPHS.index(first.glyph)
    for group in scene.groups:
        all_places = np.stack([_places(thing) for thing in group], axis=1)  # (moments, size)
        complete = np.cumsum(kept[all_places].all(axis=1)) > 0
        known = all_places[1:][complete[:-1]]
        facts["count"][known.flatten()] = len(group) - 1
    for name in facts:
        facts[name][~kept] = UNKNOWN
    return facts


LOOKUPS: Final = {
    "colour": len(COLOUR_NAMES), "direction": len(DIRECTIONS) + 1, "count": len(NUMBERS), "after": len(GLYPHS),
    "start": MOMENTS, "cells": 12,
}  # fmt: skip
"""What is asked of a named object -> number of classes; `cells`: how many cells hold its glyph, less one."""


def make_lookups(
    scene: Scene, kept: NDArray[np.bool_], facts: dict[str, NDArray[np.int64]]
) -> dict[str, dict[str, int]]:
    """For each glyph in the scene what the cells `kept` tell of it; what they do not tell is left out."""
    found: dict[str, dict[str, int]] = {}
    for thing in scene.objects:
        places = _places(thing)
        entry = found.setdefault(thing.glyph, {})
        if kept[places].any():
            entry["colour"] = COLOUR_NAMES.index(thing.colour)
            entry["cells"] = min(entry.get("cells", -1) + int(kept[places].sum()), LOOKUPS["cells"] - 1)
        for name in ("direction", "count", "start"):
            if (value := int(facts[name][places].max())) >= 0:
                entry[name] = value
    for first, then in scene.pairs:
        if facts["before"][_places(then)].max() >= 0:
            found[first.glyph]["after"] = GLYPHS.index(then.glyph)
    return found

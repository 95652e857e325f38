"""The facts that training asks of single cells: they agree with the questions, and say only what is to be seen."""

import numpy as np
import pytest

from cacovid.testbed.facts import FACTS, LOOKUPS, STILL, UNKNOWN, make_facts, make_lookups
from cacovid.testbed.lesson import evidence_places
from cacovid.testbed.packing import VIDEO_TOKENS
from cacovid.testbed.questions import Question, make_questions
from cacovid.testbed.scene import CELLS, Scene, SceneObject, make_scene
from cacovid.testbed.words import COLOUR_NAMES, DIRECTIONS, GLYPHS, NUMBERS

EVERYTHING = np.ones(VIDEO_TOKENS, dtype=bool)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene((0, number)) for number in range(20)]


def places(thing: SceneObject) -> list[int]:
    return [frame * CELLS + patch for frame, patch in thing.cells()]


def answer(question: Question, lookups: dict[str, dict[str, int]]) -> str | None:
    """What the look-ups say to a question that is one look-up by name."""
    glyph = question.text.rstrip("?").split()[-1]
    words = {"color": COLOUR_NAMES, "direction": list(DIRECTIONS), "count": NUMBERS, "after": GLYPHS}
    name = {"color": "colour"}.get(question.kind, question.kind)
    return words[question.kind][lookups[glyph][name]] if question.kind in words else None


def test_look_ups_answer_the_questions(scenes: list[Scene]) -> None:
    asked = 0
    for scene in scenes:
        lookups = make_lookups(scene, EVERYTHING, make_facts(scene, EVERYTHING))
        for question in make_questions(scene):
            if (said := answer(question, lookups)) is not None:
                assert said == question.word
                asked += 1
            if question.kind == "order":
                starts = {glyph: lookups[glyph]["start"] for glyph in question.options}
                best = (max if "last" in question.text else min)(starts, key=lambda glyph: starts[glyph])
                assert best == question.word
    assert asked == 4 * len(scenes)


def test_the_evidence_alone_tells_the_facts(scenes: list[Scene]) -> None:
    for scene in scenes:
        for question in make_questions(scene):
            kept = np.zeros(VIDEO_TOKENS, dtype=bool)
            kept[evidence_places([question])] = True
            said = answer(question, make_lookups(scene, kept, make_facts(scene, kept)))
            assert said in (None, question.word)


def test_nothing_is_told_of_cells_that_are_not_kept(scenes: list[Scene]) -> None:
    rng = np.random.default_rng(0)
    for scene in scenes:
        kept = rng.random(VIDEO_TOKENS) < 0.5
        facts = make_facts(scene, kept)
        assert set(facts) == set(FACTS)
        for name, labels in facts.items():
            assert (labels[~kept] == UNKNOWN).all()
            assert labels.max() < FACTS[name]
        for known in make_lookups(scene, kept, facts).values():
            assert all(0 <= value < LOOKUPS[name] for name, value in known.items())


def test_a_fact_needs_what_it_hangs_on() -> None:
    scene = make_scene((0, 3))
    mover = next(thing for thing in scene.objects if thing.role == "mover")
    kept = EVERYTHING.copy()
    assert make_facts(scene, kept)["direction"][places(mover)[0]] == UNKNOWN  # nothing before it
    assert make_facts(scene, kept)["direction"][places(mover)[1]] == list(DIRECTIONS).index(mover.direction)
    kept[places(mover)[0]] = False
    facts = make_facts(scene, kept)
    assert facts["direction"][places(mover)[1]] == UNKNOWN
    assert (facts["start"][places(mover)] == UNKNOWN).all()

    first, then = scene.pairs[0]
    assert (make_facts(scene, EVERYTHING)["before"][places(then)] == GLYPHS.index(first.glyph)).all()
    kept = EVERYTHING.copy()
    kept[places(first)] = False
    assert (make_facts(scene, kept)["before"][places(then)] == UNKNOWN).all()

    group = scene.groups[0]
    assert make_facts(scene, EVERYTHING)["count"][places(group[0])].tolist() == [UNKNOWN, *[len(group) - 1] * 2]
    kept = EVERYTHING.copy()
    kept[places(group[0])[0]] = False  # one of the group is not seen at its first moment
    assert make_facts(scene, kept)["count"][places(group[-1])[1]] == UNKNOWN

    still = next(thing for thing in scene.objects if thing.role == "digit")
    assert (make_facts(scene, EVERYTHING)["direction"][places(still)[1:]] == STILL).all()
    assert make_facts(scene, EVERYTHING)["seen"][places(still)].tolist() == list(range(len(still.path)))

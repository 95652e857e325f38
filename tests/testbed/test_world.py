"""The world keeps its promises: determinism, budgets, unique answers, splits that share nothing."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from cacovid.testbed.data import SPLITS, VIDEOS, split_seeds
from cacovid.testbed.evaluate import judge
from cacovid.testbed.families import LLAVA_OV
from cacovid.testbed.forms import put
from cacovid.testbed.glyphs import digit_indices
from cacovid.testbed.questions import make_questions
from cacovid.testbed.render import RAW_FRAMES, STEP, moment_frames, render
from cacovid.testbed.scene import MOMENTS, STILL_MOMENTS, Scene, make_scene
from cacovid.testbed.symbols import BACKGROUND, scene_labels
from cacovid.testbed.words import DIGITS, DIRECTIONS, KINDS, LETTERS, NUMBERS, SHAPES

SEEDS = [(2, number) for number in range(40)]


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(seed) for seed in SEEDS]


def test_the_same_seed_gives_the_same_scene_questions_and_pixels() -> None:
    first, second = make_scene((1, 7)), make_scene((1, 7))
    assert first == second
    assert make_questions(first) == make_questions(second)
    assert render(first, [0, 30]).tobytes() == render(second, [0, 30]).tobytes()


def test_other_seeds_give_other_scenes(scenes: list[Scene]) -> None:
    assert len({scene.objects for scene in scenes}) == len(scenes)


def test_no_cell_holds_two_things_at_a_moment(scenes: list[Scene]) -> None:
    for scene in scenes:
        cells = scene.object_cells() + scene.clutter_cells()
        assert len(cells) == len(set(cells))


def test_budgets_of_evidence_objects_and_distraction(scenes: list[Scene]) -> None:
    for scene in scenes:
        objects, clutter = set(scene.object_cells()), scene.clutter_cells()
        assert len(objects) >= 80
        for question in make_questions(scene):
            evidence = set(question.evidence)
            assert 1 <= len(evidence) == len(question.evidence) <= 12
            assert evidence <= objects
            assert len(objects - evidence) + len(clutter) >= 160


def test_objects_stay_for_several_moments(scenes: list[Scene]) -> None:
    assert all(3 <= len(thing.path) <= 8 for scene in scenes for thing in scene.objects)


def test_questions_of_a_video_have_different_evidence_and_every_kind_once(scenes: list[Scene]) -> None:
    for scene in scenes:
        questions = make_questions(scene)
        assert tuple(q.kind for q in questions) == KINDS
        assert len({q.evidence for q in questions}) == len(questions)


def test_options_are_distinct_and_letters_balanced() -> None:
    letters: Counter[str] = Counter()
    for number in range(VIDEOS["test"]):
        for question in make_questions(make_scene((SPLITS["test"], number))):
            assert len(set(question.options)) == 4
            letters[question.letter] += 1
    assert sum(letters.values()) >= 1000
    assert set(letters) == set(LETTERS)
    assert max(letters.values()) - min(letters.values()) <= 0.03 * sum(letters.values())


def _named(scene: Scene) -> dict[str, list]:
    found: dict[str, list] = {}
    for thing in scene.objects:
        found.setdefault(thing.glyph, []).append(thing)
    return found


def test_answers_are_the_only_right_option(scenes: list[Scene]) -> None:
    """Each answer is worked out again from the scene's cells alone."""
    for scene in scenes:
        things = _named(scene)
        for q in make_questions(scene):
            word = q.text.rstrip("?").split()[-1]
            if q.kind == "color":
                right = {thing.colour for thing in things[word]}
            elif q.kind in ("shape", "digit"):
                pool = SHAPES if q.kind == "shape" else DIGITS
                right = {g for g, many in things.items() if g in pool and many[0].colour == word}
            elif q.kind == "order":
                starts = {option: things[option][0].start for option in q.options}
                edge = (max if word == "last" else min)(starts.values())
                right = {option for option, start in starts.items() if start == edge}
            elif q.kind == "direction":
                steps = {(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(things[word][0].path)}
                right = {name for name, step in DIRECTIONS.items() if step in steps}
            elif q.kind == "count":
                right = {NUMBERS[len(things[word]) - 1]}
            else:
                gone = things[word][0]
                right = {t.glyph for t in scene.objects if t.start == gone.end + 1 and t.path[0] == gone.path[-1]}
            assert right == {q.word}, q


def test_splits_share_no_seed_and_no_handwriting() -> None:
    seeds = [set(split_seeds(split)) for split in SPLITS]
    assert len(set.union(*seeds)) == sum(len(s) for s in seeds)
    for digit in DIGITS:
        parts = [set(digit_indices(digit, number).tolist()) for number in SPLITS.values()]
        assert all(parts)
        assert len(set.union(*parts)) == sum(len(p) for p in parts)


def test_moments_are_what_uniform_sampling_hits() -> None:
    assert np.round(np.linspace(0, RAW_FRAMES - 1, MOMENTS)).astype(int).tolist() == moment_frames()
    assert np.linspace(0, RAW_FRAMES - 1, MOMENTS, dtype=int).tolist() == moment_frames()


def test_the_still_stretch_is_still_and_other_moments_move(scenes: list[Scene]) -> None:
    scene = scenes[0]
    frames = render(scene, moment_frames())
    still = range(scene.still, scene.still + STILL_MOMENTS)
    assert all((frames[a] == frames[b]).all() for a, b in pairwise(still))
    assert any((frames[a] != frames[b]).any() for a, b in pairwise(range(MOMENTS)))


def test_movers_glide_between_the_moments(scenes: list[Scene]) -> None:
    mover = next(thing for thing in scenes[0].objects if thing.role == "mover")
    between = list(range(mover.start * STEP, mover.start * STEP + STEP + 1))
    frames = render(scenes[0], between)
    assert all((a != b).any() for a, b in pairwise(frames))


def test_labels_follow_the_cells(scenes: list[Scene]) -> None:
    glyph, _ = scene_labels(scenes[0])
    assert np.flatnonzero(glyph < BACKGROUND).tolist() == [f * 25 + p for f, p in scenes[0].object_cells()]
    assert (glyph > BACKGROUND).sum() == len(scenes[0].clutter_cells())


def test_a_drill_shows_the_options_and_says_the_word(scenes: list[Scene]) -> None:
    for question in make_questions(scenes[0]):
        echo = put(question, "echo", LLAVA_OV.chat)
        shown, _, said = echo.text.partition("<|im_end|>")
        assert shown.strip().split("\n") == [f"{a}. {b}" for a, b in zip(LETTERS, question.options, strict=True)]
        assert said.endswith(f" {question.word}, option")
        assert echo.answer == f" {question.letter}"
        assert question.text not in echo.text
    with pytest.raises(ValueError, match="'brief' is not one of hint, letter, echo"):
        put(make_questions(scenes[0])[0], "brief", LLAVA_OV.chat)


def test_the_quality_bar_is_judged_part_by_part() -> None:
    def row(right: int, worst: int) -> dict[str, tuple[int, int]]:
        return {kind: (worst if kind == "count" else right, 100) for kind in KINDS}

    good = judge({"all tokens": row(95, 76), "no video": row(25, 25), "random 10%": row(60, 60)})
    assert len(good) == 4
    assert all(good.values())
    weak = judge({"all tokens": row(95, 74), "no video": row(31, 31), "random 10%": row(80, 74)})
    assert list(weak.values()) == [True, False, False, False]
    assert judge({"all tokens": row(89, 89)})["all tokens: at least 90% overall"] is False
    assert list(judge({"no video": row(30, 30)})) == ["no video: at most 30%"]

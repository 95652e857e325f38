"""Questions about a scene: seven kinds, four options each, with the cells that hold the answer."""

from dataclasses import dataclass

import numpy as np

from cacovid.testbed.scene import Scene, SceneObject
from cacovid.testbed.words import COLOUR_NAMES, DIGITS, DIRECTIONS, KINDS, LETTERS, NUMBERS, SHAPES

INSTRUCTION = "Answer with the word and the letter of the correct option."

ORDER_GAP = 4
"""Moments by which the right object of an order question comes before (or after) the others; a rare scene has less."""


@dataclass(frozen=True)
class Question:
    """One question.

    `hint` is the same question in two to six words with the asked-for word last, for the first training
    stage. `evidence` lists the (frame, patch) cells that hold the answer, in frame-major order.
    """

    kind: str
    text: str
    hint: str
    options: tuple[str, str, str, str]
    answer: int
    evidence: tuple[tuple[int, int], ...]

    @property
    def word(self) -> str:
        """The right option's text."""
        return self.options[self.answer]

    @property
    def letter(self) -> str:
        """The right option's letter."""
        return LETTERS[self.answer]

    @property
    def reply(self) -> str:
        """What the model is trained to say: the word first, then its letter."""
        return f" {self.word}, option {self.letter}"

    def prompt(self) -> str:
        """The user's text after the video: question, lettered options, instruction."""
        return "\n".join([self.text, self.lettered(), INSTRUCTION])

    def lettered(self) -> str:
        """The options, a line each, behind their letters."""
        return "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=True))


@dataclass(frozen=True)
class _Draft:
    text: str
    hint: str
    right: str
    wrong: tuple[str, str, str]
    evidence: list[tuple[int, int]]


class _Asker:
    """Draws the questions of one scene; no two of them ask about the same object where that can be."""

    def __init__(self, scene: Scene, rng: np.random.Generator) -> None:
        self.scene, self.rng = scene, rng
        members = {id(thing) for group in scene.groups for thing in group[1:]}
        self.named = [thing for thing in scene.objects if id(thing) not in members]
        self.shapes = [thing for thing in self.named if thing.glyph in SHAPES]
        self.digits = [thing for thing in self.named if thing.glyph in DIGITS]
        self.asked: set[str] = set()

    def pick(self, things: list[SceneObject]) -> SceneObject:
        fresh = [thing for thing in things if thing.glyph not in self.asked]
        pool = fresh or things
        thing = pool[int(self.rng.integers(0, len(pool)))]
        self.asked.add(thing.glyph)
        return thing

    def three(self, words: list[str], right: str) -> tuple[str, str, str]:
        pool = sorted(set(words) - {right})
        first, second, third = (pool[i] for i in self.rng.permutation(len(pool))[:3])
        return first, second, third

    def cells(self, thing: SceneObject) -> list[tuple[int, int]]:
        return [c for other in self.scene.objects if other.glyph == thing.glyph for c in other.cells()]

    def color(self) -> _Draft:
        thing = self.pick([t for t in self.named if t.role != "group"])
        name = f"digit {thing.glyph}" if thing.glyph in DIGITS else thing.glyph
        wrong = self.three([other.colour for other in self.named], thing.colour)
        return _Draft(f"What is the color of the {name}?", f"color {name}", thing.colour, wrong, self.cells(thing))

    def shape(self) -> _Draft:
        colours = [thing.colour for thing in self.shapes]
        thing = self.pick([t for t in self.shapes if colours.count(t.colour) == 1])
        wrong = self.three([other.glyph for other in self.shapes], thing.glyph)
        return _Draft(
            f"Which shape has the color {thing.colour}?",
            f"shape {thing.colour}",
            thing.glyph,
            wrong,
            self.cells(thing),
        )

    def digit(self) -> _Draft:
        thing = self.pick(self.digits)
        wrong = self.three([other.glyph for other in self.digits], thing.glyph)
        return _Draft(
            f"Which digit has the color {thing.colour}?",
            f"digit {thing.colour}",
            thing.glyph,
            wrong,
            self.cells(thing),
        )

    def order(self) -> _Draft:
        """Four objects, one of which comes (or comes last) by ORDER_GAP moments, where the scene allows."""
        last = bool(self.rng.integers(0, 2))
        things = [t for t in self.named if t.role != "group"]
        mix = [things[i] for i in self.rng.permutation(len(things))]
        thing, others = next(
            (thing, others)
            for gap in range(ORDER_GAP, 0, -1)
            for thing in mix
            if len(others := [t for t in mix if (thing.start - t.start) * (1 if last else -1) >= gap]) >= 3
        )
        four = [thing, *others[:3]]
        evidence = [cell for t in four for cell in t.cells()[:3]]
        word = "last" if last else "first"
        a, b, c = (t.glyph for t in others[:3])
        shown = " ".join(four[i].glyph for i in self.rng.permutation(4))
        return _Draft(f"Which of these appears {word}?", f"{word} {shown}", thing.glyph, (a, b, c), evidence)

    def direction(self) -> _Draft:
        thing = self.pick([t for t in self.named if t.role == "mover"])
        wrong = self.three(list(DIRECTIONS), thing.direction)
        text = f"What is the direction of motion of the {thing.glyph}?"
        return _Draft(text, f"direction {thing.glyph}", thing.direction, wrong, thing.cells())

    def count(self) -> _Draft:
        group = self.scene.groups[int(self.rng.integers(0, len(self.scene.groups)))]
        glyph, right = group[0].glyph, NUMBERS[len(group) - 1]
        self.asked.add(glyph)
        text = f"How many objects have the shape {glyph}?"
        return _Draft(text, f"number {glyph}", right, self.three(list(NUMBERS), right), self.cells(group[0]))

    def after(self) -> _Draft:
        first, then = self.scene.pairs[int(self.rng.integers(0, len(self.scene.pairs)))]
        self.asked |= {first.glyph, then.glyph}
        wrong = self.three([t.glyph for t in self.shapes if t.glyph != first.glyph], then.glyph)
        text = f"In the same place, what comes after the {first.glyph}?"
        return _Draft(text, f"after {first.glyph}", then.glyph, wrong, first.cells() + then.cells())


# The kinds with the fewest objects to choose from draw first, so that the others can avoid them.
_DRAW_ORDER = ("count", "after", "direction", "digit", "shape", "color", "order")
assert sorted(_DRAW_ORDER) == sorted(KINDS)


def make_questions(scene: Scene, round_number: int = 0) -> list[Question]:
    """One question of each kind, in the order of KINDS; another `round_number` gives other questions."""
    rng = np.random.default_rng([*scene.seed, 7919, round_number])
    asker = _Asker(scene, rng)
    letters = rng.permutation([0, 1, 2, 3, 0, 1, 2, 3])
    found: dict[str, Question] = {}
    for kind, letter in zip(_DRAW_ORDER, letters[: len(KINDS)], strict=True):
        draft: _Draft = getattr(asker, kind)()
        options = list(draft.wrong)
        options.insert(int(letter), draft.right)
        a, b, c, d = options
        found[kind] = Question(kind, draft.text, draft.hint, (a, b, c, d), int(letter), tuple(sorted(draft.evidence)))
    return [found[kind] for kind in KINDS]


def words_in_questions() -> list[str]:
    """Every word that can stand in an option."""
    return [*SHAPES, *DIGITS, *COLOUR_NAMES, *NUMBERS, *DIRECTIONS]

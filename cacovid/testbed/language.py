"""Stage "language": the LLM learns to answer from symbolic tokens, with no pixels anywhere.

What makes it learn within minutes, where the plain task sits at guessing: questions that are one look-up
first; a question's own evidence alone, then more and more of the video around it; short hints with the
asked-for word last, then whole questions; and probes that ask every token (see probes.py). The next level
comes when every kind is learnt, or after a number of steps. Each row also drills the letter of a word.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import LlavaOnevisionForConditionalGeneration, PreTrainedTokenizerFast

from cacovid.testbed.data import SPLITS
from cacovid.testbed.lesson import Lesson, Row, evidence_places
from cacovid.testbed.packing import VIDEO_TOKENS
from cacovid.testbed.probes import Probes
from cacovid.testbed.questions import Question, make_questions
from cacovid.testbed.scene import CELLS, Scene, make_scene
from cacovid.testbed.symbols import Symbols, label_batch
from cacovid.testbed.training import Run, share, worker
from cacovid.testbed.words import KINDS

ONE_LOOK_UP: Final = ("color", "shape", "digit")


@dataclass(frozen=True)
class Level:
    """One level of the curriculum.

    A row holds the evidence of up to `together` questions, up to `things` whole objects, pairs or groups, and
    up to `cells` further cells; `rows` a step; `hints`: share of the steps that put all questions as hints;
    `cap`: steps after which the next level comes in any case; `drill`: the form that drills letters.
    """

    together: int
    things: int
    cells: int
    rows: int
    hints: float
    cap: int
    kinds: tuple[str, ...] = KINDS
    drill: str = "echo4"


LEVELS: Final = (
    Level(1, 0, 0, 48, 1.0, 100, ONE_LOOK_UP, "echo1"),
    Level(1, 0, 0, 48, 1.0, 75, (*ONE_LOOK_UP, "after"), "echo2"),
    Level(2, 1, 0, 48, 1.0, 250, (*ONE_LOOK_UP, "after"), "echo2"),
    Level(1, 1, 0, 48, 1.0, 150),
    Level(3, 3, 20, 32, 0.7, 400),
    Level(5, 8, 60, 24, 0.8, 350),
    Level(8, 16, VIDEO_TOKENS, 12, 0.6, 10**6),
)
_SINGLE: Final = ("mover", "digit", "shape")
_JUDGE_EVERY: Final = 25
_ROUNDS: Final = 3
"""Rounds of questions of one scene to choose from."""
_ROWS_A_SCENE: Final = 4
_SEEDS_FROM: Final = 1_000_000
"""The symbolic scenes of the train split; below lie the ones that are made into videos."""


def keep(rng: np.random.Generator, scene: Scene, questions: list[Question], level: Level) -> NDArray[np.int64]:
    """The places that stay in a row: the evidence, things and cells; three rows in ten have all the cells they may."""
    kept = np.zeros(VIDEO_TOKENS, dtype=bool)
    kept[evidence_places(questions)] = True
    # Pairs come more often: "after" is the hardest look-up and a video has but two of them.
    things = [*scene.pairs, *scene.groups, *((thing,) for thing in scene.objects if thing.role in _SINGLE)]
    order = rng.random(len(things)) * np.where(np.arange(len(things)) < len(scene.pairs), 0.3, 1.0)
    for i in np.argsort(order)[: int(rng.integers(0, level.things + 1))]:
        kept[[frame * CELLS + patch for thing in things[i] for frame, patch in thing.cells()]] = True
    number = int(min(1.0, 1.4 * rng.random()) * level.cells)
    kept[rng.permutation(np.flatnonzero(~kept))[:number]] = True
    return np.flatnonzero(kept)


class LanguageStage:
    """The step function of the stage, with its curriculum as state."""

    def __init__(self, lesson: Lesson, symbols: Symbols, run: Run) -> None:
        self.lesson, self.symbols, self.run = lesson, symbols, run
        run.state = {"level": 0, "since": 0, "need": dict.fromkeys(KINDS, 1.0)}

    def _draw(self, scene: Scene, rng: np.random.Generator, level: Level, form: str) -> Row:
        """A row of questions; the kinds that are learnt already mostly stay out."""
        first = int(rng.integers(0, 1000))
        pool = [q for i in range(_ROUNDS) for q in make_questions(scene, first + i) if q.kind in level.kinds]
        need = np.array([self.run.state["need"][question.kind] for question in pool])
        number = int(rng.integers((level.together + 1) // 2, level.together + 1))
        chosen = rng.choice(len(pool), number, replace=False, p=need / need.sum())
        questions = [pool[i] for i in chosen]
        kept = keep(rng, scene, questions, level)
        return Row(scene, kept, [*questions, questions[0]], [form] * number + [level.drill])

    def _drill(self, scene: Scene, rng: np.random.Generator, level: Level) -> Row:
        """The letters of options with no video in sight, whose tokens are like the words to be found."""
        asked = make_questions(scene, int(rng.integers(0, 1000)))
        questions = [asked[i] for i in rng.choice(len(asked), 2, replace=False)]
        return Row(scene, np.zeros(0, dtype=np.int64), questions, [level.drill] * 2)

    def step(self, number: int) -> Tensor:
        level = LEVELS[self.run.state["level"]]
        rank, workers = worker()
        rng = np.random.default_rng([11, number, rank])
        rows = share(level.rows)
        first = _SEEDS_FROM + (number * workers + rank) * 64
        scenes = [make_scene((SPLITS["train"], first + i)) for i in range(-(-rows // _ROWS_A_SCENE))]
        # One form a step: rows of one length, hardly any padding.
        form = "hint" if np.random.default_rng([11, number]).random() < level.hints else "letter"
        drawn = [self._draw(scenes[i // _ROWS_A_SCENE], rng, level, form) for i in range(rows)]
        drills = [self._drill(scene, rng, level) for scene in scenes for _ in range(2)]
        glyph, colour = label_batch(scenes)
        owner = torch.from_numpy(np.repeat(np.arange(rows) // _ROWS_A_SCENE, [len(row.kept) for row in drawn]))
        place = torch.from_numpy(np.concatenate([row.kept for row in drawn]))
        device = self.lesson.device
        video = self.symbols(
            self.lesson.model, *(t.to(device) for t in (glyph[owner, place], colour[owner, place], place))
        )
        loss = self.lesson.loss([*drawn, *drills], video, rng)
        self._judge(number, float(loss.detach()))
        return loss

    def _judge(self, number: int, loss: float) -> None:
        """Log now and then, and move up when the level is learnt."""
        state = self.run.state
        state["since"] += 1
        if (number + 1) % _JUDGE_EVERY:
            return
        shares, lines = self.lesson.report()
        self.run.log(number + 1, loss=round(loss, 4), level=state["level"], **lines)
        asked = [part for (form, _), part in shares.items() if not form.startswith("echo")]
        learnt = min(asked) > 0.85 and sum(asked) / len(asked) > 0.93
        if learnt or state["since"] >= LEVELS[state["level"]].cap:
            state["level"], state["since"] = min(state["level"] + 1, len(LEVELS) - 1), 0
        for kind in KINDS:
            own = [part for (form, name), part in shares.items() if name == kind and not form.startswith("echo")]
            state["need"][kind] = min(1.0, max(0.1, 2.0 * (1 - sum(own) / max(1, len(own)))))


def train_language(
    model: LlavaOnevisionForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    symbols: Symbols,
    probes: Probes,
    folder: Path,
    steps: int,
    device: torch.device,
) -> None:
    """Train language model and symbols in place, or load what an earlier run trained."""
    newline = nn.ParameterDict({"newline": model.model.image_newline})
    modules = {"language": model.model.language_model, "newline": newline, "symbols": symbols, "probes": probes}
    run = Run("language", folder, modules, peak=1e-3, steps=steps)
    run.fit(LanguageStage(Lesson(model, tokenizer, probes, device), symbols, run).step, decay=0.35)

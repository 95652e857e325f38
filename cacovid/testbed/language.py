"""Stage "language": the LLM learns to answer from symbolic tokens, with no pixels anywhere.

What makes it learn within minutes, where the plain task sits at guessing: questions that are one look-up
first; a question's own evidence alone, then more and more of the video around it; short hints with the
asked-for word last, then whole questions; and probes that ask every token (see probes.py). The next level
comes when every kind is learnt, or after a number of steps. Beside the questions of each step, rows without a
video drill the letters of options: a look-up of its own, which questions about videos do not teach.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from cacovid.testbed.data import SPLITS
from cacovid.testbed.families import Family, VideoModel
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
    up to `cells` further cells; `rows` a step, and beside them `drills` rows that drill letters; `hints`: share of
    the steps that put all questions as hints, not in the benchmark's form; `cap`: steps after which the next level
    comes in any case.
    """

    together: int
    things: int
    cells: int
    rows: int
    drills: int
    hints: float
    cap: int
    kinds: tuple[str, ...] = KINDS


LEVELS: Final = (
    Level(1, 0, 0, 48, 24, 1.0, 100, ONE_LOOK_UP),
    Level(1, 0, 0, 48, 24, 1.0, 75, (*ONE_LOOK_UP, "after")),
    Level(2, 1, 0, 48, 24, 1.0, 250, (*ONE_LOOK_UP, "after")),
    Level(1, 1, 0, 48, 8, 0.8, 150),
    Level(3, 3, 20, 32, 8, 0.7, 450),
    Level(5, 8, 60, 24, 8, 0.7, 300),
    Level(8, 16, VIDEO_TOKENS, 12, 4, 0.6, 10**6),
)
_SINGLE: Final = ("mover", "digit", "shape")
_JUDGE_EVERY: Final = 25
_ROUNDS: Final = 3
"""Rounds of questions of one scene to choose from."""
_ROWS_A_SCENE: Final = 4
_DRILLS_A_ROW: Final = 4
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
        need = {form: dict.fromkeys(KINDS, 1.0) for form in ("hint", "letter")}
        run.state = {"level": 0, "since": 0, "need": need}

    def _draw(self, scene: Scene, rng: np.random.Generator, level: Level, form: str) -> Row:
        """A row of questions; the kinds that are learnt already in this form mostly stay out."""
        first = int(rng.integers(0, 1000))
        pool = [q for i in range(_ROUNDS) for q in make_questions(scene, first + i) if q.kind in level.kinds]
        need = np.array([self.run.state["need"][form][question.kind] for question in pool])
        number = int(rng.integers((level.together + 1) // 2, level.together + 1))
        chosen = rng.choice(len(pool), number, replace=False, p=need / need.sum())
        questions = [pool[i] for i in chosen]
        kept = keep(rng, scene, questions, level)
        return Row(scene, kept, questions, [form] * number)

    def _drill(self, scene: Scene, rng: np.random.Generator) -> Row:
        """The letters of options, with no video."""
        asked = make_questions(scene, int(rng.integers(0, 1000)))
        questions = [asked[i] for i in rng.choice(len(asked), _DRILLS_A_ROW, replace=False)]
        return Row(scene, np.zeros(0, dtype=np.int64), questions, ["echo"] * _DRILLS_A_ROW)

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
        drills = [self._drill(scenes[i % len(scenes)], rng) for i in range(share(level.drills))]
        glyph, colour = label_batch(scenes)
        owner = torch.from_numpy(np.repeat(np.arange(rows) // _ROWS_A_SCENE, [len(row.kept) for row in drawn]))
        place = torch.from_numpy(np.concatenate([row.kept for row in drawn]))
        device = self.lesson.device
        video = self.symbols(
            self.lesson.model, *(t.to(device) for t in (glyph[owner, place], colour[owner, place], place))
        )
        # Apart, since they are of another length; yet one step: by itself a drill would undo what videos taught.
        loss = self.lesson.loss(drawn, video, rng) + self.lesson.loss(drills, video[:0], rng)
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
        for (form, kind), part in shares.items():
            if form in state["need"]:
                state["need"][form][kind] = min(1.0, max(0.1, 2.0 * (1 - part)))
        hints = [part for (form, _), part in shares.items() if form == "hint"]
        learnt = bool(hints) and min(hints) > 0.85 and sum(hints) / len(hints) > 0.93
        if learnt or state["since"] >= LEVELS[state["level"]].cap:
            state["level"], state["since"] = min(state["level"] + 1, len(LEVELS) - 1), 0


def train_language(
    family: Family,
    model: VideoModel,
    tokenizer: PreTrainedTokenizerFast,
    symbols: Symbols,
    probes: Probes,
    folder: Path,
    steps: int,
    device: torch.device,
) -> None:
    """Train language model and symbols in place, or load what an earlier run trained."""
    modules = {"language": model.model.language_model, **family.beside(model), "symbols": symbols, "probes": probes}
    run = Run("language", folder, modules, peak=1e-3, steps=steps)
    run.fit(LanguageStage(Lesson(family, model, tokenizer, probes, device), symbols, run).step, decay=0.35)

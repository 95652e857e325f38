"""Stage "language": the LLM learns to answer from symbolic tokens, with no pixels anywhere.

What makes it learn within minutes, where the plain task sits at guessing: a question's own evidence alone
at first, then more and more of the video around it; short hints with the asked-for word last, then whole
questions that are answered with a word, then letters. The next level comes when every kind is learnt.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import LlavaOnevisionForConditionalGeneration, PreTrainedTokenizerFast

from cacovid.testbed.data import SPLITS
from cacovid.testbed.forms import put
from cacovid.testbed.packing import VIDEO_TOKENS, Asked, answer_logits, answer_loss, pack
from cacovid.testbed.questions import Question, make_questions, make_stepping_stones
from cacovid.testbed.scene import CELLS, Scene, make_scene
from cacovid.testbed.symbols import Symbols, label_batch
from cacovid.testbed.training import Run, mixed_precision, share, worker
from cacovid.testbed.words import KINDS


@dataclass(frozen=True)
class Level:
    """One level of the curriculum.

    `together`: how many of a video's questions share a row, which holds the evidence of these;
    `extra`: up to so many further tokens; `scenes` a step; `forms`: share of each question form;
    `cap`: steps after which the next level comes in any case.
    """

    together: int
    extra: int
    scenes: int
    forms: dict[str, float]
    cap: int


_HINT = {"hint": 1.0}
LEVELS = (
    Level(1, 0, 40, _HINT, 500),
    Level(2, 2, 40, _HINT, 250),
    Level(4, 5, 40, _HINT, 150),
    Level(4, 5, 14, {"hint": 0.15, "echo": 0.1, "choose": 0.4, "brief": 0.35}, 1000),
    Level(8, 100, 10, {"hint": 0.6, "letter": 0.4}, 250),
    Level(8, 355, 8, {"hint": 0.4, "letter": 0.6}, 10**6),
)
_JUDGE_EVERY = 25
_STONES_BELOW = 4
"""Levels below this one have stepping stones among their hints."""
_ROUNDS = 3
"""Rounds of questions of one scene to choose from."""
_SEEDS_FROM = 1_000_000
"""The symbolic scenes of the train split; below lie the ones that are made into videos."""


def evidence_places(questions: Sequence[Question]) -> NDArray[np.int64]:
    """The flat positions of all evidence of some questions, ascending."""
    return np.array(sorted({f * CELLS + p for question in questions for f, p in question.evidence}))


def _keep(rng: np.random.Generator, questions: Sequence[Question], level: Level) -> NDArray[np.int64]:
    """The places that stay in a row: the evidence, and up to `extra` more."""
    kept = np.zeros(VIDEO_TOKENS, dtype=bool)
    kept[evidence_places(questions)] = True
    number = int(rng.integers(0, level.extra + 1))
    kept[rng.permutation(np.flatnonzero(~kept))[:number]] = True
    return np.flatnonzero(kept)


class LanguageStage:
    """The step function of the stage, with its curriculum as state."""

    def __init__(
        self,
        model: LlavaOnevisionForConditionalGeneration,
        symbols: Symbols,
        tokenizer: PreTrainedTokenizerFast,
        run: Run,
        device: torch.device,
    ) -> None:
        self.model, self.symbols, self.tokenizer, self.run, self.device = (
            model,
            symbols,
            tokenizer,
            run,
            device,
        )
        self.run.state = {"level": 0, "since": 0, "need": dict.fromkeys(KINDS, 1 / _ROUNDS)}
        self.right: Counter[tuple[str, str]] = Counter()
        self.seen: Counter[tuple[str, str]] = Counter()

    def step(self, number: int) -> Tensor:
        level = LEVELS[self.run.state["level"]]
        rank, workers = worker()
        rng = np.random.default_rng([11, number, rank])
        first = _SEEDS_FROM + (number * workers + rank) * 64
        scenes = [make_scene((SPLITS["train"], first + i)) for i in range(share(level.scenes))]
        glyph, colour = label_batch(scenes)
        rows: list[list[Asked]] = []
        names: list[str] = []
        kept: list[NDArray[np.int64]] = []
        source: list[int] = []
        for i, scene in enumerate(scenes):
            mixed = self._choose(scene, rng)
            for row in (mixed[j : j + level.together] for j in range(0, len(mixed), level.together)):
                forms = [str(f) for f in rng.choice(list(level.forms), len(row), p=list(level.forms.values()))]
                kept.append(_keep(rng, row, level))
                forms = [form if q.text else "hint" for q, form in zip(row, forms, strict=True)]
                rows.append([put(q, form) for q, form in zip(row, forms, strict=True)])
                names += forms
                source.append(i)
        packed = pack(self.tokenizer, kept, rows).to(self.device)
        place = torch.from_numpy(np.concatenate(kept))
        owner = torch.from_numpy(np.repeat(source, [len(k) for k in kept]))
        with mixed_precision(self.device):
            video = self.symbols(
                self.model, *(t.to(self.device) for t in (glyph[owner, place], colour[owner, place], place))
            )
            logits, targets, asked = answer_logits(self.model, packed, video)
            loss = answer_loss(logits, targets)
        right = (logits[asked].argmax(-1) == targets[asked]).tolist()
        for hit, question, form in zip(right, [q for row in rows for q in row], names, strict=True):
            self.right[question.kind, form] += hit
            self.seen[question.kind, form] += 1
        self._judge(number, float(loss.detach()))
        return loss

    def _choose(self, scene: Scene, rng: np.random.Generator) -> list[Question]:
        """Three rounds of questions, of which the kinds that are learnt already mostly stay out."""
        need = self.run.state["need"]
        pool = [q for number in range(_ROUNDS) for q in make_questions(scene, number)]
        chosen = [q for q in pool if rng.random() < need[q.kind]] or pool[:1]
        if self.run.state["level"] < _STONES_BELOW:
            chosen += [q for q in make_stepping_stones(scene, int(rng.integers(0, 100))) if rng.random() < 0.6]
        return [chosen[j] for j in rng.permutation(len(chosen))]

    def _gather(self) -> None:
        """Add up all workers' counts, so that all of them decide alike."""
        if worker()[1] == 1:
            return
        counts: list[Any] = [None] * worker()[1]
        torch.distributed.all_gather_object(counts, (self.right, self.seen))
        self.right, self.seen = (sum((c[i] for c in counts), Counter()) for i in (0, 1))

    def _judge(self, number: int, loss: float) -> None:
        """Log the accuracy by form and kind now and then, and move up when the level is learnt."""
        state = self.run.state
        state["since"] += 1
        if (number + 1) % _JUDGE_EVERY:
            return
        self._gather()
        shares = {key: self.right[key] / self.seen[key] for key in self.seen}
        table = {
            form: {kind: round(shares[kind, form], 3) for kind in (*KINDS, "before", "pair") if (kind, form) in shares}
            for form in {form for _, form in shares}
        }
        self.run.log(number + 1, loss=round(loss, 4), level=state["level"], accuracy=table)
        self.right.clear()
        self.seen.clear()
        for kind in KINDS:
            own = [part for (name, form), part in shares.items() if name == kind and form != "echo"] or [0.0]
            state["need"][kind] = min(1.0, max(0.1, 2.0 * (1 - sum(own) / len(own))))
        learnt = min(shares.values()) > 0.85 and sum(shares.values()) / len(shares) > 0.93
        if learnt or state["since"] >= LEVELS[state["level"]].cap:
            state["level"], state["since"] = min(state["level"] + 1, len(LEVELS) - 1), 0


def train_language(
    model: LlavaOnevisionForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    steps: int,
    device: torch.device,
) -> Symbols:
    """Train the language model in place (or load what an earlier run trained); returns the symbols."""
    symbols = Symbols(tokenizer, model.model.image_newline.numel()).to(device)
    newline = nn.ParameterDict({"newline": model.model.image_newline})
    modules = {"language": model.model.language_model, "newline": newline, "symbols": symbols}
    run = Run("language", folder, modules, peak=1.5e-3, steps=steps)
    stage = LanguageStage(model, symbols, tokenizer, run, device)
    run.fit(stage.step, decay=0.1)
    return symbols

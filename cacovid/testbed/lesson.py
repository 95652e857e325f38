"""What the two stages that train the language model share: rows of questions to a loss and a tally."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from cacovid.testbed.facts import make_facts, make_lookups
from cacovid.testbed.families import Family, VideoModel, Wrapping
from cacovid.testbed.forms import put, roll_call
from cacovid.testbed.packing import VIDEO_TOKENS, Packed, answer_logits, answer_loss, pack
from cacovid.testbed.probes import Probes
from cacovid.testbed.questions import Question
from cacovid.testbed.scene import CELLS, Scene
from cacovid.testbed.training import mixed_precision, worker
from cacovid.testbed.words import KINDS

_PROBES_WEIGHT: Final = 0.3


def evidence_places(questions: Sequence[Question]) -> NDArray[np.int64]:
    """The flat positions of all evidence of some questions, ascending."""
    return np.array(sorted({f * CELLS + p for question in questions for f, p in question.evidence}), dtype=np.int64)


@dataclass(frozen=True)
class Row:
    """One packed row: the kept tokens of a video (flat positions, ascending), the questions and their forms."""

    scene: Scene
    kept: NDArray[np.int64]
    questions: list[Question]
    forms: list[str]


class Lesson:
    """The loss of some rows: cross-entropy of the answers, and of the probes on the way."""

    def __init__(
        self,
        family: Family,
        model: VideoModel,
        tokenizer: PreTrainedTokenizerFast,
        probes: Probes,
        device: torch.device,
    ) -> None:
        self.family, self.model, self.tokenizer, self.probes, self.device = family, model, tokenizer, probes, device
        self.right: Counter[tuple[str, str]] = Counter()
        self.seen: Counter[tuple[str, str]] = Counter()

    def _pack(
        self, rows: Sequence[Row], rng: np.random.Generator, wrapping: Wrapping, compact: bool
    ) -> tuple[Packed, list[Any], list[Any]]:
        """The rows as a batch, each with a roll call of its objects behind its questions, and their labels."""
        facts, lookups, asked = [], [], []
        for row in rows:
            seen = np.zeros(VIDEO_TOKENS, dtype=bool)
            seen[row.kept] = True
            everywhere = make_facts(row.scene, seen)
            facts.append({name: labels[row.kept] for name, labels in everywhere.items()})
            lookups.append(make_lookups(row.scene, seen, everywhere))
            glyphs = [glyph for glyph, known in lookups[-1].items() if known]
            called = roll_call([glyphs[i] for i in rng.permutation(len(glyphs))], wrapping)
            questions = zip(row.questions, row.forms, strict=True)
            asked.append([*(put(question, form, wrapping) for question, form in questions), called])
        packed = pack(self.family, self.tokenizer, [row.kept for row in rows], asked, wrapping, compact)
        return packed.to(self.device), facts, lookups

    def loss(
        self,
        rows: Sequence[Row],
        video: Tensor,
        rng: np.random.Generator,
        wrapping: Wrapping | None = None,
        compact: bool = False,
    ) -> Tensor:
        """The loss of one batch. video: the kept tokens of all rows in order, (n, D); without `wrapping` the chat's."""
        wrapping = wrapping or self.family.chat
        packed, facts, lookups = self._pack(rows, rng, wrapping, compact)
        with mixed_precision(self.device), self.probes.watching(self.model):
            logits, targets, first = answer_logits(self.model, packed, video)
            loss = answer_loss(logits, targets)
        self._tally(rows, (logits.argmax(-1) == targets), first)
        return loss + _PROBES_WEIGHT * self.probes.loss(packed, facts, lookups, not compact)

    def _tally(self, rows: Sequence[Row], hits: Tensor, first: Tensor) -> None:
        """Count the answers of which every token is right."""
        ends = [*first.tolist()[1:], len(hits)]
        wrong = torch.cat([hits.new_zeros(1, dtype=torch.long), (~hits).long().cumsum(0)]).tolist()
        spans = iter(zip(first.tolist(), ends, strict=True))
        for row in rows:
            for question, form in zip(row.questions, row.forms, strict=True):
                begin, end = next(spans)
                self.right[form, question.kind] += wrong[begin] == wrong[end]
                self.seen[form, question.kind] += 1
            next(spans)  # the roll call

    def report(self) -> tuple[dict[tuple[str, str], float], dict[str, Any]]:
        """Shares of right answers by form and kind since the last report, over all workers; and lines for a log."""
        own = (self.right, self.seen, self.probes.right, self.probes.seen)
        counts: list[Any] = [own]
        if worker()[1] > 1:
            counts = [None] * worker()[1]
            torch.distributed.all_gather_object(counts, own)
        right, seen, probed_right, probed = (sum((c[i] for c in counts), Counter[Any]()) for i in range(4))
        for counter in own:
            counter.clear()
        shares = {key: right[key] / seen[key] for key in seen}
        table = {
            form: {kind: round(shares[form, kind], 3) for kind in KINDS if (form, kind) in shares}
            for form in sorted({form for form, _ in shares})
        }
        facts = {name: round(probed_right[name] / probed[name], 3) for name in probed if probed[name]}
        return shares, {"accuracy": table, "probes": facts}

"""Linear probes on the language model's hidden states, and their loss against what the world knows.

They give every token something to learn, where an answer teaches one: the video tokens say the facts of
their cell a third of the way up; the names of objects in the questions say, further up, what the video tells
of the object of that name, and further up still, which of the objects named so far came first and last. The
words of the options, and the same word in the reply, say their letter.
They act on hidden states, never on attention maps, and are thrown away.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from cacovid.testbed.facts import FACTS, LOOKUPS, UNKNOWN
from cacovid.testbed.families import VideoModel
from cacovid.testbed.packing import Packed
from cacovid.testbed.words import GLYPHS, LETTERS

FACTS_AT: Final = 3
"""Layers below the probe on video tokens."""
LOOKUPS_AT: Final = 6
"""Layers below the probe on the names of objects."""
EXTREMES_AT: Final = 7
"""Layers below the probe on which of the named objects came first and last."""
EXTREMES: Final = {"earliest": len(GLYPHS), "latest": len(GLYPHS)}

Facts = Mapping[str, NDArray[np.int64]]
Lookups = Mapping[str, Mapping[str, int]]


class _Heads(nn.Module):
    def __init__(self, width: int, classes: Mapping[str, int]) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, count) for name, count in classes.items()})


class Probes(nn.Module):
    """The heads, and the tally of what they got right since it was last cleared."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, width: int) -> None:
        super().__init__()
        self.facts, self.lookups, self.extremes = (_Heads(width, c) for c in (FACTS, LOOKUPS, EXTREMES))
        self.options, self.replies = (_Heads(width, {"letter": len(LETTERS)}) for _ in range(2))
        self.letters = [tokenizer(letter).input_ids[0] for letter in LETTERS]
        self.dot, self.comma, self.said = (tokenizer(text).input_ids[0] for text in (".", ",", " option"))
        self.vocabulary = len(tokenizer)
        self.names = {glyph: tokenizer(f" {glyph}").input_ids[0] for glyph in GLYPHS}
        self.right: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self._hidden: dict[int, Tensor] = {}

    @contextmanager
    def watching(self, model: VideoModel) -> Iterator[None]:
        """Within the block, remember the hidden states that the probes read."""

        def remember(number: int) -> Any:
            def hook(_module: nn.Module, _args: Any, output: Any) -> None:
                self._hidden[number] = output if isinstance(output, Tensor) else output[0]

            return hook

        layers = model.model.language_model.layers
        watched = (FACTS_AT, LOOKUPS_AT, EXTREMES_AT)
        hooks = [layers[number - 1].register_forward_hook(remember(number)) for number in watched]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _cross_entropy(self, group: _Heads, name: str, mark: str, hidden: Tensor, labels: Tensor) -> Tensor:
        known = labels != UNKNOWN
        logits = group.heads[name](group.norm(hidden[known])).float()
        self.right[mark + name] += int((logits.argmax(-1) == labels[known]).sum())
        self.seen[mark + name] += len(logits)
        # The sum of nothing is 0, its mean is NaN.
        return nn.functional.cross_entropy(logits, labels[known], reduction="sum") / max(1, len(logits))

    def loss(self, packed: Packed, facts: Sequence[Facts], lookups: Sequence[Lookups], timed: bool) -> Tensor:
        """Sum of the mean cross-entropies of all facts and lookups of the forward pass that was watched.

        facts[b][name] are the labels of row b's kept tokens in order; lookups[b][glyph][name] what row b
        tells of an object. Without `timed` (compacted positions) no moment is asked for.
        """
        at_low, at_names, at_last = (self._hidden.pop(at) for at in (FACTS_AT, LOOKUPS_AT, EXTREMES_AT))
        device = at_low.device
        total = torch.zeros((), device=device)
        option, reply = (labels.to(device) for labels in self._letters(packed))
        total = total + self._cross_entropy(self.options, "letter", "an option's ", at_low, option)
        total = total + self._cross_entropy(self.replies, "letter", "a reply's ", at_names, reply)
        at_video = at_low[packed.video_at]
        for name in FACTS:
            if timed or name != "start":
                labels = torch.from_numpy(np.concatenate([row[name] for row in facts])).to(device)
                total = total + self._cross_entropy(self.facts, name, "", at_video, labels)
        for name in LOOKUPS:
            if timed or name != "start":
                table = torch.full((len(lookups), self.vocabulary), UNKNOWN)
                for b, row in enumerate(lookups):
                    for glyph, known in row.items():
                        table[b, self.names[glyph]] = known.get(name, UNKNOWN)
                labels = table.to(device).gather(1, packed.ids)
                total = total + self._cross_entropy(self.lookups, name, "of a name: ", at_names, labels)
        if timed:
            for name, labels in self._extremes(packed, lookups).items():
                total = total + self._cross_entropy(self.extremes, name, "so far ", at_last, labels.to(device))
        return total

    def _letters(self, packed: Packed) -> tuple[Tensor, Tensor]:
        """The letter at the word of each option, and at the word of each reply; (B, L), UNKNOWN elsewhere."""
        ids = packed.ids.cpu().numpy()
        option, reply = np.full(ids.shape, UNKNOWN), np.full(ids.shape, UNKNOWN)
        for number, letter in enumerate(self.letters):
            option[:, 2:][(ids[:, :-2] == letter) & (ids[:, 1:-1] == self.dot)] = number
        for b, i in zip(*np.nonzero((ids[:, 1:-1] == self.comma) & (ids[:, 2:] == self.said)), strict=True):
            # The last option of this word is that of the reply's own question.
            same = np.flatnonzero((option[b, :i] != UNKNOWN) & (ids[b, :i] == ids[b, i]))
            reply[b, i] = option[b, same[-1]] if len(same) else UNKNOWN
        return torch.from_numpy(option), torch.from_numpy(reply)

    def _extremes(self, packed: Packed, lookups: Sequence[Lookups]) -> dict[str, Tensor]:
        """At each name of a question the object, among those named up to there, that came first and last.

        UNKNOWN where two of them tie, and from a name on of which the video does not tell when it came.
        """
        ids, block = packed.ids.cpu().numpy(), packed.block.cpu().numpy()
        labels = {name: np.full(ids.shape, UNKNOWN) for name in EXTREMES}
        glyph_of = {token: glyph for glyph, token in self.names.items()}
        for b, row in enumerate(lookups):
            before = -1
            starts: dict[str, int] = {}
            for i in np.flatnonzero(np.isin(ids[b], list(glyph_of))):
                if block[b, i] != before:
                    before, starts = block[b, i], {}
                glyph = glyph_of[int(ids[b, i])]
                starts[glyph] = row.get(glyph, {}).get("start", UNKNOWN)
                if UNKNOWN in starts.values():
                    continue
                for name, pick in (("earliest", min), ("latest", max)):
                    best = [g for g, start in starts.items() if start == pick(starts.values())]
                    if len(best) == 1:
                        labels[name][b, i] = GLYPHS.index(best[0])
        return {name: torch.from_numpy(table) for name, table in labels.items()}

"""Measure a test-bed checkpoint: `python -m cacovid.testbed.evaluate [--checkpoint DIR] [--split test]`.

Real mp4 files, decord, the checkpoint's processor, the stock model, greedy answer: first with all video
tokens, then with none, and with tokens dropped in ways that say what the world is made of.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm
from transformers import AutoProcessor, PreTrainedTokenizerFast

from cacovid.backbones import TESTBEDS, family_of
from cacovid.testbed.data import load_split
from cacovid.testbed.families import FAMILIES, Family, VideoModel
from cacovid.testbed.packing import VIDEO_TOKENS, Asked, answer_logits, pack
from cacovid.testbed.scene import CELLS
from cacovid.testbed.sight import read_frames
from cacovid.testbed.words import KINDS, LETTERS

Document = dict[str, Any]
Places = NDArray[np.int64]
Table = dict[str, dict[str, tuple[int, int]]]
"""Condition -> kind -> (right answers, questions)."""


def _flat(cells: list[list[int]]) -> Places:
    return np.array([frame * CELLS + patch for frame, patch in cells], dtype=np.int64)


def _fill(first: Places, budget: int, rng: np.random.Generator) -> Places:
    """`first`, thinned at random or filled up at random to the budget."""
    if len(first) >= budget:
        return np.sort(rng.permutation(first)[:budget])
    rest = np.setdiff1d(np.arange(VIDEO_TOKENS), first)
    return np.sort(np.concatenate([first, rng.permutation(rest)[: budget - len(first)]]))


def _random(budget: int) -> Callable[[Document, np.random.Generator], Places]:
    return lambda doc, rng: _fill(np.array([], dtype=np.int64), budget, rng)


TENTH: Final = VIDEO_TOKENS // 10
CONDITIONS: Final[dict[str, Callable[[Document, np.random.Generator], Places]]] = {
    "all tokens": _random(VIDEO_TOKENS),
    "no video": _random(0),
    "random 25%": _random(VIDEO_TOKENS // 4),
    "random 10%": _random(TENTH),
    "evidence + random 10%": lambda doc, rng: _fill(_flat(doc["evidence"]), TENTH, rng),
    "object cells, thinned to 10%": lambda doc, rng: _fill(_flat(doc["object_cells"]), TENTH, rng),
    "all object cells": lambda doc, rng: _flat(doc["object_cells"]),
}
"""What is kept of the video, by name; positions stay the original ones."""


@torch.no_grad()
def greedy_letters(
    family: Family,
    model: VideoModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: list[str],
    kept: list[Places],
    tokens: Tensor,
    compact: bool,
) -> list[str]:
    """The letter that a greedy reply to each text names, "" for a reply of another form.

    Two passes instead of five: the first gives the reply's word, the second reads, behind that word, whether
    the model goes on with ", option" and with which letter. `kept` has one entry for all texts or one each.
    """
    together = len(kept) == 1
    places = torch.from_numpy(np.concatenate(kept))

    def logits_behind(replies: list[str]) -> tuple[Tensor, Tensor]:
        asked = [Asked(text, reply, "") for text, reply in zip(texts, replies, strict=True)]
        rows = [asked] if together else [[one] for one in asked]
        logits, _, first = answer_logits(model, pack(family, tokenizer, kept, rows, compact=compact), tokens[places])
        return logits, first

    logits, first = logits_behind([" red"] * len(texts))
    words = logits[first].argmax(-1)
    starts = [f"{tokenizer.decode([word])}, option" for word in words.tolist()]
    logits, first = logits_behind([start + " B" for start in starts])
    said = logits.argmax(-1)
    # " B", " C" and " D" are one token each, " A" is a space and a letter: a space begins no other reply.
    names = {tokenizer(f" {letter}").input_ids[0]: letter for letter in LETTERS}
    letters = []
    for word, text, place in zip(words.tolist(), starts, first.tolist(), strict=True):
        ids = tokenizer(text).input_ids
        regular = len(ids) == 3 and ids[0] == word and said[place : place + 3].tolist() == ids
        letters.append(names.get(int(said[place + 3]), "") if regular else "")
    return letters


@torch.no_grad()
def evaluate(
    checkpoint: Path,
    split: str = "test",
    limit_videos: int | None = None,
    conditions: Sequence[str] = tuple(CONDITIONS),
    compact: bool = False,
) -> Table:
    """Right answers by condition and kind."""
    family = FAMILIES[family_of(str(checkpoint)).family]
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = family.load_model(checkpoint)
    documents = load_split(split, limit_videos)
    videos = [documents[i : i + len(KINDS)] for i in range(0, len(documents), len(KINDS))]
    table: Table = {name: dict.fromkeys(KINDS, (0, 0)) for name in conditions}
    for number, group in enumerate(tqdm(videos, desc="Evaluating", unit="video")):
        frames = read_frames(Path(group[0]["video"]), family.frames)
        tokens = family.video_tokens(model, family.pixels(processor, frames)[None])[0]
        texts = [family.chat.lead + doc["prompt"] + family.chat.tail for doc in group]
        for name in conditions:
            rng = np.random.default_rng([number, list(CONDITIONS).index(name)])
            kept = [CONDITIONS[name](doc, rng) for doc in group]
            if name in ("all tokens", "no video", "all object cells"):
                kept = kept[:1]  # the same tokens for every question: one row for all
            letters = greedy_letters(family, model, processor.tokenizer, texts, kept, tokens, compact)
            for doc, letter in zip(group, letters, strict=True):
                right, seen = table[name][doc["kind"]]
                table[name][doc["kind"]] = right + int(letter == doc["answer"]), seen + 1
    return table


def format_table(table: Table) -> str:
    """The table as Markdown: one row a condition, percent right, overall first."""
    lines = ["| kept of the video | all | " + " | ".join(KINDS) + " |", "|---" * (len(KINDS) + 2) + "|"]
    for name, kinds in table.items():
        right, seen = (sum(pair[i] for pair in kinds.values()) for i in (0, 1))
        cells = [f"{100 * r / s:.1f}" for r, s in ((right, seen), *(kinds[kind] for kind in KINDS))]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def judge(table: Table) -> dict[str, bool]:
    """The parts of the quality bar that the table's conditions tell of -> whether they are met.

    With all tokens 90% overall and 75% in every kind; without the video at most chance (a quarter) and five
    points; with a random tenth of the tokens at least fifteen points below all tokens.
    """
    part = {name: {kind: right / seen for kind, (right, seen) in kinds.items()} for name, kinds in table.items()}
    whole = {name: sum(kinds.values()) / len(kinds) for name, kinds in part.items()}  # as many of each kind
    verdict = {}
    if "all tokens" in table:
        verdict["all tokens: at least 90% overall"] = whole["all tokens"] >= 0.90
        verdict["all tokens: at least 75% in every kind"] = min(part["all tokens"].values()) >= 0.75
    if "no video" in table:
        verdict["no video: at most 30%"] = whole["no video"] <= 0.30
    if {"all tokens", "random 10%"} <= set(table):
        gap = whole["all tokens"] - whole["random 10%"]
        verdict["random 10%: at least 15 points below all tokens"] = gap >= 0.15
    return verdict


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(prog="python -m cacovid.testbed.evaluate", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=TESTBEDS["testbed"])
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test")
    parser.add_argument("--videos", type=int, help="only the first so many videos")
    parser.add_argument("--conditions", nargs="+", choices=tuple(CONDITIONS), default=tuple(CONDITIONS))
    parser.add_argument("--compact", action="store_true", help="renumber the kept tokens' positions")
    parser.add_argument("--json", type=Path, help="also write the counts here")
    options = parser.parse_args(arguments)
    table = evaluate(options.checkpoint, options.split, options.videos, options.conditions, options.compact)
    print(format_table(table))
    print()
    for part, met in judge(table).items():
        print(f"{'met' if met else 'NOT MET'}: {part}")
    if options.json:
        options.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

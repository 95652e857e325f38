"""The contribution study on the test bed: every method's order against what tokens contribute, question by question."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from tqdm import tqdm

from cacovid.backbones.base import Backbone, VideoRequest
from cacovid.contribution.leave_out import contributions, random_sets
from cacovid.contribution.order import order_of
from cacovid.registry import build_method
from cacovid.runs.settings import checkpoint_identity
from cacovid.testbed.data import load_split, word_of
from cacovid.testbed.scene import CELLS, MOMENTS
from cacovid.testbed.words import KINDS
from cacovid.training.answering import Ask, log_probabilities
from cacovid.video import read_clip


class StudyError(ValueError):
    """A folder that holds another study."""


EVIDENCE, OTHER_HALF = "the evidence itself", "the other half of the sets"
"""Rows that say how well anything could do."""


@dataclass(frozen=True)
class Contestant:
    """A method with its settings, under a label."""

    label: str
    name: str
    settings: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """What is measured: `sets` random kept sets a question with every token kept at `keep`; recall at `retention`."""

    videos: int = 20
    sets: int = 512
    keep: float = 0.25
    retention: float = 0.1
    split: str = "test"
    seed: int = 0


def run_study(backbone: Backbone, contestants: list[Contestant], study: Study, folder: Path) -> None:
    """Measure, video by video, into `folder`/rows.jsonl; killed, the same call goes on.

    A row is one question under one contestant: rank correlation (Spearman) with the contributions; gain, what the
    contributions of its kept set at `retention` add up to beyond those of a random set of its size, in nats;
    evidence recall; and question sensitivity, the mean of 1 - Jaccard between its kept set and those of the video's
    other questions. The noise of single contributions cancels in the gain, not in the rank correlation.
    """
    for contestant in contestants:
        build_method(contestant.name, retention=study.retention, **contestant.settings)  # refuse before long work
    folder.mkdir(parents=True, exist_ok=True)
    journal = folder / "rows.jsonl"
    # By content: the same study goes on wherever the checkpoint lies.
    model = checkpoint_identity(str(backbone.model.name_or_path), getattr(backbone.model.config, "_commit_hash", None))
    known = {"model": model, "study": vars(study), "contestants": [vars(contestant) for contestant in contestants]}
    _same_or_new(folder / "study.json", known)
    done = _done(journal)
    documents = load_split(study.split, study.videos)
    videos = [documents[i : i + len(KINDS)] for i in range(0, len(documents), len(KINDS))]
    with open(journal, "a", encoding="utf-8") as file:
        for number, group in enumerate(tqdm(videos, desc="contribution", unit="video")):
            if group[0]["video_id"] in done:
                continue
            rows = _measure(backbone, contestants, study, group, number)
            file.write("".join(json.dumps(row) + "\n" for row in rows) + f'{{"done": "{group[0]["video_id"]}"}}\n')
            file.flush()


def _measure(
    backbone: Backbone, contestants: list[Contestant], study: Study, group: list[dict[str, Any]], number: int
) -> list[dict[str, Any]]:
    """The rows of one video's questions."""
    clip = read_clip(group[0]["video"], backbone.frames)
    needs = frozenset[Any]().union(*(build_method(c.name, **c.settings).needs for c in contestants))
    kept: dict[tuple[str, str], set[int]] = {}
    rows = []
    for doc in group:
        content = [{"type": "video"}, {"type": "text", "text": doc["prompt"]}]
        prompt = backbone.template([{"role": "user", "content": content}])
        video = backbone.encode([VideoRequest(clip.frames, prompt, clip.sha256, clip.rate)], needs)[0]
        if (video.frames, video.tokens_per_frame) != (MOMENTS, CELLS):
            raise StudyError(
                f"the LLM sees {video.frames} frames of {video.tokens_per_frame} tokens; the test bed's evidence is "
                f"known for {MOMENTS} frames of {CELLS}: give pretrained=testbed, or a checkpoint of that layout"
            )
        seed = int(np.random.SeedSequence([study.seed, number, KINDS.index(doc["kind"])]).generate_state(1)[0])
        masks = random_sets(len(video), study.sets, study.keep, torch.Generator().manual_seed(seed))
        (values,) = log_probabilities(backbone, [Ask(prompt, video, masks)], [reply_to(doc)], together=64)
        worth = contributions(masks, values)
        evidence = {frame * CELLS + patch for frame, patch in doc["evidence"]}
        base = {"video": doc["video_id"], "kind": doc["kind"]}
        half = study.sets // 2
        one, other = (contributions(masks[part], values[part]) for part in (slice(half), slice(half, None)))
        best = set(other.topk(round(study.retention * len(video))).indices.tolist())
        rows.append({**base, "label": OTHER_HALF, "correlation": _correlation(other, one), "gain": _gain(best, one)})
        is_evidence = torch.zeros(len(video)).index_fill_(0, torch.tensor(sorted(evidence)), 1.0)
        told = {"correlation": _correlation(is_evidence, worth), "gain": _gain(evidence, worth)}
        rows.append({**base, "label": EVIDENCE, **told})
        for contestant in contestants:
            order, sets = order_of(backbone, contestant.name, contestant.settings, video, study.retention)
            kept[contestant.label, doc["kind"]] = sets
            rows.append(
                {
                    **base,
                    "label": contestant.label,
                    "correlation": _correlation(order, worth),
                    "gain": _gain(sets, worth),
                    "evidence_recall": len(sets & evidence) / len(evidence),
                }
            )
    for row in rows:
        if (own := kept.get((row["label"], row["kind"]))) is not None:
            others = [kept[row["label"], kind] for kind in KINDS if kind != row["kind"]]
            row["sensitivity"] = float(np.mean([1 - len(own & other) / len(own | other) for other in others]))
    return rows


def reply_to(document: dict[str, Any]) -> str:
    """The right word, which opens the right reply; the letter behind it follows from the word and is only noise."""
    return f" {word_of(document)}"


def _gain(kept: set[int], worth: Tensor) -> float:
    """Sum of the contributions of `kept` beyond that of as many average tokens."""
    return float((worth[sorted(kept)] - worth.mean()).sum())


def _correlation(order: Tensor, worth: Tensor) -> float | None:
    """Spearman's rank correlation; None where one of them is constant (all tokens kept equally long)."""
    if order.unique().numel() < 2 or worth.unique().numel() < 2:
        return None
    return float(spearmanr(order.numpy(), worth.numpy()).statistic)


def _done(journal: Path) -> set[str]:
    """Videos that an earlier call finished; what it wrote of an unfinished one is taken out of the file."""
    if not journal.exists():
        return set()
    lines = [line for line in journal.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    rows = [json.loads(line) for line in lines]
    done = {row["done"] for row in rows if "done" in row}
    whole = [line for line, row in zip(lines, rows, strict=True) if row.get("done", row.get("video")) in done]
    journal.write_text("".join(line + "\n" for line in whole), encoding="utf-8")
    return done


def _same_or_new(file: Path, known: dict[str, Any]) -> None:
    """Refuse a folder that holds another study."""
    text = json.dumps(known, indent=1, sort_keys=True)
    if file.exists() and file.read_text(encoding="utf-8") != text:
        raise StudyError(f"{file} describes another study; give another folder, or delete {file.parent}")
    file.write_text(text, encoding="utf-8")

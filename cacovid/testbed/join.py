"""Stages "align" and "join": the two halves meet.

align: tower and projector learn to produce the sums of word embeddings (squared error, the language model
frozen). join: the language model learns to read the real video tokens, whole and thinned, from frozen
features.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from cacovid.testbed.families import Family, VideoModel
from cacovid.testbed.lesson import Lesson, Row, evidence_places
from cacovid.testbed.packing import VIDEO_TOKENS
from cacovid.testbed.probes import Probes
from cacovid.testbed.questions import Question, make_questions
from cacovid.testbed.scene import CELLS, Scene
from cacovid.testbed.sight import jitter, to_float
from cacovid.testbed.symbols import BACKGROUND, Symbols
from cacovid.testbed.training import Run, mixed_precision, share, worker
from cacovid.testbed.words import KINDS

_JUDGE_EVERY = 50
_SHARPNESS = 4.0
"""Turns squared distances to the embeddings into logits."""


@torch.no_grad()
def _solve_projector(family: Family, model: VideoModel, pixels: Tensor, wanted: Tensor, device: torch.device) -> None:
    """Set the projector's last layer to the least-squares fit of the wanted tokens (n, CELLS, D)."""
    owner, name = family.last_layer(model)
    last = owner.get_submodule(name)
    assert isinstance(last, nn.Linear)
    setattr(owner, name, nn.Identity())
    hidden = torch.cat([family.frame_tokens(model, to_float(part.to(device))) for part in pixels.split(32)])
    setattr(owner, name, last)
    inputs = nn.functional.pad(hidden.flatten(0, 1), (0, 1), value=1.0).double()
    ridge = 1e-3 * len(inputs) / 1000 * torch.eye(inputs.shape[1], dtype=torch.double, device=device)
    fit = torch.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ wanted.flatten(0, 1).double()).float()
    last.weight.copy_(fit[:-1].T)
    last.bias.copy_(fit[-1])


def train_align(
    family: Family,
    model: VideoModel,
    symbols: Symbols,
    pixels: Tensor,
    labels: tuple[Tensor, Tensor],
    folder: Path,
    steps: int,
    device: torch.device,
    frames: int = 32,
) -> None:
    """Teach tower and projector the language model's own symbols."""
    frames = share(frames)
    flat_pixels, (glyph, colour) = pixels.flatten(0, 1), (part.view(-1, CELLS) for part in labels)
    run = Run("align", folder, family.sight(model), peak=1e-3, steps=steps)
    if not run.partial.exists() and not run.finished.exists():
        some = torch.from_numpy(np.random.default_rng(13).integers(0, len(flat_pixels), 640))
        with torch.no_grad():
            everywhere = torch.arange(CELLS, device=device).repeat(len(some))
            fit_to = symbols(model, glyph[some].flatten().to(device), colour[some].flatten().to(device), everywhere)
        _solve_projector(family, model, flat_pixels[some], fit_to.view(len(some), CELLS, -1), device)
    place = torch.arange(CELLS, device=device).repeat(frames)

    def step(number: int) -> Tensor:
        rng = np.random.default_rng([13, number, worker()[0]])
        chosen = torch.from_numpy(rng.integers(0, len(flat_pixels), frames))
        with torch.no_grad():
            wanted = symbols(
                model, glyph[chosen].flatten().to(device), colour[chosen].flatten().to(device), place
            ).view(frames, CELLS, -1)
        with mixed_precision(device):
            found = family.frame_tokens(model, jitter(to_float(flat_pixels[chosen].to(device)), rng))
        found = found.float()
        error = (found - wanted).square().mean() / wanted.var()
        # Squared error alone loses the glyphs: they are the hardest part and a small share of it.
        kinds, right = torch.zeros((), device=device), []
        for labels_of, words in zip((glyph, colour), symbols.words(model), strict=True):
            truth = labels_of[chosen].flatten().to(device)
            words = words.detach()
            apart = torch.cdist((found - wanted).flatten(0, 1) + words[truth], words).square()
            kinds = kinds + nn.functional.cross_entropy(-_SHARPNESS * apart, truth)
            right.append((apart.argmin(-1) == truth)[glyph[chosen].flatten().to(device) < BACKGROUND])
        if (number + 1) % _JUDGE_EVERY == 0:
            names = zip(("glyph", "colour"), right, strict=True)
            shares = {name: round(hits.float().mean().item(), 3) for name, hits in names}
            run.log(number + 1, relative_error=round(error.item(), 4), **shares)
        return error + kinds

    run.fit(step, decay=0.5)


def thin(rng: np.random.Generator, scene: Scene, questions: list[Question]) -> NDArray[np.int64]:
    """Which tokens of a video stay in one training row (flat positions, ascending).

    Seven rows in twenty keep all of them; nine hold the evidence of their questions and a share of the rest;
    four keep 5 to 100%, at random or with a lean towards objects or towards the evidence, as bad and good
    compression methods do.
    """
    fate = rng.random()
    if fate < 0.35:
        return np.arange(VIDEO_TOKENS)
    if fate < 0.8:
        kept = np.zeros(VIDEO_TOKENS, dtype=bool)
        kept[evidence_places(questions)] = True
        kept[rng.permutation(VIDEO_TOKENS)[: int(rng.integers(0, VIDEO_TOKENS + 1))]] = True
        return np.flatnonzero(kept)
    budget = int(VIDEO_TOKENS * 20 ** -rng.random())
    score = rng.random(VIDEO_TOKENS)
    lean = int(rng.integers(0, 3))
    if lean == 1:
        score[[f * CELLS + p for f, p in scene.object_cells()]] += rng.random()
    elif lean == 2:
        score[evidence_places(questions)] += rng.random() * 2
    return np.sort(np.argsort(-score)[:budget])


class AnswerStage:
    """Questions about real videos, from the tower's stored tokens, whole and thinned."""

    def __init__(self, lesson: Lesson, run: Run, scenes: list[Scene], stored: Tensor, rows: int) -> None:
        self.lesson, self.run, self.scenes, self.stored = lesson, run, scenes, stored
        self.rows = share(rows)
        run.state = {"need": dict.fromkeys(KINDS, 0.5)}

    def step(self, number: int) -> Tensor:
        rng = np.random.default_rng([14, number, worker()[0]])
        chosen = rng.integers(0, len(self.stored), self.rows)
        # One wrapping and one kind of positions a step: they belong to the packed batch.
        family = self.lesson.family
        wrapping = family.chat if rng.random() < 0.8 else family.habits[int(rng.integers(0, len(family.habits)))]
        compact = bool(rng.random() < 0.15) and family.compacts
        rows = []
        for index in chosen:
            scene = self.scenes[int(index)]
            first = int(rng.integers(1, 1000))
            pool = [q for i in range(3) for q in make_questions(scene, first + i)]
            questions = [q for q in pool if rng.random() < self.run.state["need"][q.kind]] or pool[:1]
            forms = ["letter" if rng.random() < 0.7 else "hint" for _ in questions]
            rows.append(Row(scene, thin(rng, scene, questions), questions, forms))
        owner = torch.from_numpy(np.repeat(chosen, [len(row.kept) for row in rows]))
        place = torch.from_numpy(np.concatenate([row.kept for row in rows]))
        video = self.stored[owner, place].float().to(self.lesson.device)
        loss = self.lesson.loss(rows, video, rng, wrapping, compact)
        if (number + 1) % _JUDGE_EVERY == 0:
            shares, lines = self.lesson.report()
            self.run.log(number + 1, loss=round(float(loss.detach()), 4), **lines)
            for kind in KINDS:
                # Rows are thinned, so that no kind reaches 1.
                self.run.state["need"][kind] = min(0.8, max(0.2, 1.5 * (1 - shares.get(("letter", kind), 0.5))))
        return loss


@torch.no_grad()
def features(family: Family, model: VideoModel, pixels: Tensor, device: torch.device) -> Tensor:
    """The video tokens of all stored videos, (V, VIDEO_TOKENS, D) in half precision."""
    parts = []
    for part in tqdm(pixels.split(4), desc="features"):
        with mixed_precision(device):
            parts.append(family.video_tokens(model, to_float(part.to(device))).half().cpu())
    return torch.cat(parts)


def train_join(
    family: Family,
    model: VideoModel,
    tokenizer: PreTrainedTokenizerFast,
    probes: Probes,
    stored: Tensor,
    scenes: list[Scene],
    folder: Path,
    steps: int,
    device: torch.device,
) -> None:
    """The language model learns to read real, thinned video tokens (V, VIDEO_TOKENS, D)."""
    modules = {"language": model.model.language_model, **family.beside(model), "probes": probes}
    run = Run("join", folder, modules, peak=6e-4, steps=steps)
    lesson = Lesson(family, model, tokenizer, probes, device)
    run.fit(AnswerStage(lesson, run, scenes, stored, rows=8).step, decay=0.6)

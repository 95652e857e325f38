"""What all stages of the test bed's training share: the optimiser, the resumable run, the packed lesson."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cacovid.testbed.curve import draw_curve
from cacovid.testbed.facts import UNKNOWN
from cacovid.testbed.families import FAMILIES, LLAVA_OV, Family
from cacovid.testbed.forms import put
from cacovid.testbed.join import thin
from cacovid.testbed.language import LEVELS, keep
from cacovid.testbed.lesson import Lesson, Row, evidence_places
from cacovid.testbed.muon import Muon, orthogonalise
from cacovid.testbed.packing import VIDEO_TOKENS, Asked, pack
from cacovid.testbed.probes import Probes
from cacovid.testbed.questions import make_questions
from cacovid.testbed.scene import make_scene
from cacovid.testbed.sight import jitter
from cacovid.testbed.symbols import Symbols, label_batch
from cacovid.testbed.training import Run
from cacovid.testbed.words import GLYPHS


@pytest.mark.parametrize("shape", [(3, 16, 40), (2, 40, 16), (1, 24, 24)], ids=str)
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, ...]) -> None:
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape, generator=torch.manual_seed(0))))
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_muon_steps_as_a_plain_loop_would() -> None:
    torch.manual_seed(0)
    start = [torch.randn(8, 12), torch.randn(8, 12), torch.randn(12, 8)]
    weights = [nn.Parameter(w.clone()) for w in start]
    optimizer = Muon(weights, lr=0.1, momentum=0.9, weight_decay=0.05)
    naive, momenta = [w.clone() for w in start], [torch.zeros_like(w) for w in start]
    for _ in range(3):
        for i, weight in enumerate(weights):
            gradient = torch.randn_like(weight)
            weight.grad = gradient
            momenta[i] = 0.9 * momenta[i] + 0.1 * gradient
            ahead = 0.1 * gradient + 0.9 * momenta[i]
            step = orthogonalise(ahead[None])[0] * max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
            naive[i] = naive[i] * (1 - 0.1 * 0.05) - 0.1 * step
        optimizer.step()
    for weight, expected in zip(weights, naive, strict=True):
        torch.testing.assert_close(weight.detach(), expected, atol=1e-5, rtol=1e-5)


class Interrupted(Exception):
    pass


def run_of(folder: Path) -> tuple[Run, nn.Module]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.LayerNorm(12), nn.Linear(12, 3))
    return Run("toy", folder, {"model": model}, peak=1e-3, steps=30), model


def loss_of(run: Run, model: nn.Module, stop_at: int | None = None):
    def step(number: int) -> Tensor:
        if number == stop_at:
            raise Interrupted
        rng = np.random.default_rng(number)
        run.state["steps"] = run.state.get("steps", 0) + 1
        x, y = torch.from_numpy(rng.normal(size=(8, 6))).float(), torch.from_numpy(rng.integers(0, 3, 8))
        return nn.functional.cross_entropy(model(x), y)

    return step


def test_an_interrupted_run_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    run, unbroken = run_of(tmp_path / "unbroken")
    run.fit(loss_of(run, unbroken), save_every=10)
    run, model = run_of(tmp_path / "broken")
    with pytest.raises(Interrupted):
        run.fit(loss_of(run, model, stop_at=17), save_every=10)
    run, model = run_of(tmp_path / "broken")
    run.fit(loss_of(run, model), save_every=10)
    assert run.state == {"steps": 30}
    for expected, got in zip(unbroken.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(got, expected, atol=0, rtol=0)
    run, again = run_of(tmp_path / "broken")
    run.fit(loss_of(run, again, stop_at=0))  # finished: it is only loaded
    for expected, got in zip(unbroken.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(got, expected, atol=0, rtol=0)


def test_matrices_learn_by_muon_and_all_else_by_adamw(tmp_path: Path) -> None:
    layer, table, probe = nn.Linear(4, 4), nn.Embedding(5, 4), nn.Linear(4, 2)
    modules = {"layer": layer, "table": table, "probes": probe}
    run = Run("toy", tmp_path, modules, peak=1e-3, steps=1)
    by_muon = run.optimizers["muon"].param_groups[0]["params"]
    assert [id(p) for p in by_muon] == [id(layer.weight)]
    assert {id(p) for p in run.optimizers["adamw"].param_groups[0]["params"]} == {
        id(p) for p in (layer.bias, table.weight, probe.weight, probe.bias)
    }


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: f"{level.together}-{level.things}-{level.cells}")
def test_a_row_keeps_the_evidence_and_no_more_than_its_level(level) -> None:
    rng = np.random.default_rng(0)
    scene = make_scene((0, 5))
    for _ in range(20):
        questions = [q for q in make_questions(scene) if q.kind in level.kinds][: level.together]
        kept = keep(rng, scene, questions, level)
        evidence = evidence_places(questions)
        assert np.isin(evidence, kept).all()
        assert (np.diff(kept) > 0).all()
        assert len(kept) <= min(VIDEO_TOKENS, len(evidence) + 12 * level.things + level.cells)


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES)
def family(request) -> Family:
    return request.param


def test_a_lesson_counts_whole_answers_and_moves_every_weight(family: Family) -> None:
    torch.manual_seed(0)
    processor = family.build_processor()
    model, device = family.build_model(processor), torch.device("cpu")
    probes = Probes(processor.tokenizer, 128)
    symbols = Symbols(processor.tokenizer, 128)
    lesson = Lesson(family, model, processor.tokenizer, probes, device)
    scene = make_scene((0, 2))
    questions = make_questions(scene)
    places = np.arange(VIDEO_TOKENS)
    row = Row(scene, places, questions, ["hint", "letter"] * 3 + ["letter"])
    glyph, colour = label_batch([scene])
    video = symbols(model, glyph[0], colour[0], torch.from_numpy(places))
    lesson.loss([row], video, np.random.default_rng(0)).backward()
    still = [
        name
        for name, weight in [*model.model.language_model.named_parameters(), *probes.named_parameters()]
        if weight.grad is None or not weight.grad.any()
    ]
    assert still == []
    shares, lines = lesson.report()
    assert set(shares) == {(form, q.kind) for form, q in zip(row.forms, questions, strict=True)}
    assert set(shares.values()) == {0.0}  # an untrained model says nothing right
    assert set(lines["probes"]) >= {"direction", "count", "before", "start", "seen", "of a name: after"}
    assert not lesson.seen
    assert not probes.seen
    # Compacted positions tell no moments, and the hooks are gone after each pass.
    lesson.loss([row], video, np.random.default_rng(0), compact=True)
    assert "start" not in probes.seen
    assert not any(layer._forward_hooks for layer in model.model.language_model.layers)


def test_the_curve_is_drawn_from_a_log(tmp_path: Path) -> None:
    rows = [
        {"stage": "language", "seconds": 60 * i, "accuracy": {"hint": {"color": 0.5}, "letter": {"color": 0.1 * i}}}
        for i in range(3)
    ]
    rows.append({"stage": "sight", "seconds": 9, "glyph": 0.4, "colour": 0.9})
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    draw_curve(tmp_path / "log.jsonl", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5000


def test_letters_are_asked_at_the_options_words_and_at_the_replys(family: Family) -> None:
    processor = family.build_processor()
    probes = Probes(processor.tokenizer, 128)
    questions = make_questions(make_scene((0, 1)))
    forms = ("letter", "echo", "hint")
    asked = [put(q, form, family.chat) for q in questions for form in forms]
    packed = pack(family, processor.tokenizer, [np.arange(5)], [asked])
    option, reply = probes._letters(packed)
    # Four options in each lettered form; the hints have neither options nor a letter.
    assert option[option != UNKNOWN].tolist() == [0, 1, 2, 3] * 2 * len(questions)
    assert reply[reply != UNKNOWN].tolist() == [q.answer for q in questions for _ in range(2)]


def test_extremes_are_those_of_the_names_so_far() -> None:
    processor = LLAVA_OV.build_processor()
    probes = Probes(processor.tokenizer, 128)
    starts = {"star": 5, "moon": 2, "heart": 9, "ring": 2}
    asked = [Asked("\n\n heart star moon ring", " moon", "a"), Asked("\n\n star heart gate moon", " star", "b")]
    packed = pack(LLAVA_OV, processor.tokenizer, [np.arange(3)], [asked])
    table = probes._extremes(packed, [{glyph: {"start": start} for glyph, start in starts.items()}])
    known = {name: [GLYPHS[i] for i in labels[labels != UNKNOWN].tolist()] for name, labels in table.items()}
    # The answer names its object too. The ring ties with the moon; after the gate, of which nothing is known,
    # nothing is asked.
    assert known["earliest"] == ["heart", "star", "moon", "star", "star"]
    assert known["latest"] == ["heart"] * 5 + ["star", "heart"]


@pytest.mark.parametrize("channels", [3, 6])
def test_jitter_moves_cells_and_stays_within_them(channels: int) -> None:
    pixels = torch.zeros(2, channels, 80, 80)
    pixels[:, :, 16:32, 32:48] = torch.rand(2, channels, 16, 16)  # the cell in row 1, column 2
    moved = jitter(pixels, np.random.default_rng(0))
    assert moved.shape == pixels.shape and not torch.equal(moved, pixels)
    outside = torch.ones(80, 80, dtype=torch.bool)
    outside[16:32, 32:48] = False
    assert (moved[:, :, outside] == 0).all(), "what is in a cell stays in it: its label holds"
    assert torch.equal(moved, jitter(pixels, np.random.default_rng(0))), "drawn from the generator alone"


def test_rows_of_join_hold_whole_videos_evidence_and_little() -> None:
    scene = make_scene((0, 5))
    questions = make_questions(scene)[:2]
    evidence = set(evidence_places(questions).tolist())
    rng = np.random.default_rng(0)
    rows = [thin(rng, scene, questions) for _ in range(400)]
    whole = sum(len(row) == VIDEO_TOKENS for row in rows)
    assert 100 < whole < 180, "seven in twenty"
    assert all((np.diff(row) > 0).all() for row in rows)
    with_evidence = sum(evidence <= set(row.tolist()) for row in rows)
    assert with_evidence > 0.8 * 400 and min(len(row) for row in rows) < 40

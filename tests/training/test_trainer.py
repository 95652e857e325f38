"""The trainer on a tiny model and real video files: it learns, resumes exactly, and shares work between processes."""

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from each_family import both_families
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cacovid.policy.checkpoint import load_policy
from cacovid.training.answering import Ask, answer_all, log_probabilities
from cacovid.training.encoded import EncodedVideo, EncodedVideos
from cacovid.training.problems import Problem
from cacovid.training.sampling import Sampler
from cacovid.training.settings import Optimisation, Settings, Validation
from cacovid.training.trainer import Trainer
from cacovid.video import read_clip

pytestmark = both_families

SETTINGS = Settings(
    steps=4,
    questions=2,
    iterations=2,
    max_new_tokens=1,
    save_every=2,
    sampler=Sampler(token_rollouts=6, frame_rollouts=3),
    optimisation=Optimisation(lr=1e-3),
    validation=Validation(every=2, questions=2, retentions=(0.25,)),
)


def write_video(path: Path, seed: int) -> str:
    """Twelve frames of noise blocks."""
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 4, 4, 3), np.uint8).repeat(16, 1).repeat(16, 2)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=12)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for frame in pixels:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    return str(path)


@pytest.fixture(scope="module")
def small(backbone):
    """The tiny backbone, watching six frames a video."""
    backbone.model.config.cacovid_frames = 6
    yield backbone
    del backbone.model.config.cacovid_frames


@pytest.fixture(scope="module")
def problems(small, tmp_path_factory) -> list[Problem]:
    """Questions of which some kept sets are answered as the whole video is, and some are not."""
    folder = tmp_path_factory.mktemp("videos")
    drafts = [Problem(str(i), write_video(folder / f"{i}.mp4", i), f"What is it? {i}", "OCR", "") for i in range(6)]
    trainer = Trainer(small, drafts, [], folder / "run", SETTINGS, Accelerator(cpu=True))
    found = []
    for draft in drafts:
        question = trainer._ask(draft)
        masks = torch.rand(16, len(question.video), generator=torch.Generator().manual_seed(0)) < 0.1
        replies = answer_all(small, [Ask(question.prompt, question.video, masks)], max_new_tokens=1)[0]
        common = max(set(replies), key=replies.count)
        if 0 < replies.count(common) < 16 and common.strip():
            found.append(replace(draft, solution=common, reply=common))
    assert len(found) >= 2, "a random model answers some sets in one way and some in another"
    return found


def train(backbone, problems, folder: Path, settings: Settings = SETTINGS) -> list[dict[str, float]]:
    Trainer(backbone, problems, problems[:2], folder, settings, Accelerator(cpu=True)).train()
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def unbroken(small, problems, tmp_path_factory) -> tuple[Path, list[dict[str, float]]]:
    folder = tmp_path_factory.mktemp("unbroken")
    return folder, train(small, problems, folder)


def test_a_run_moves_the_policy_and_not_the_backbone(small, problems, unbroken) -> None:
    folder, rows = unbroken
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert any(row["norm"] > 0 for row in rows), "some rollouts were worth more than others"
    assert {"loss", "token", "greedy", "frame", "content", "rate"} <= set(rows[0])
    assert [row["step"] for row in rows if "validation@0.25" in row] == [2, 4]
    start = Trainer(small, problems, [], folder / "fresh", SETTINGS, Accelerator(cpu=True)).policy.state_dict()
    last = load_policy(str(folder / "last")).state_dict()
    assert not torch.equal(start["token_compress.0.weight"], last["token_compress.0.weight"])
    assert torch.equal(start["mode_selection.0.weight"], last["mode_selection.0.weight"])
    assert load_policy(str(folder / "best")).attention == "bidirectional"
    assert all(weight.grad is None for weight in small.model.parameters())


def test_what_a_run_leaves_to_look_at(unbroken) -> None:
    folder, rows = unbroken
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    found = {e.step: e.value for e in events.Scalars("loss")}
    assert found == pytest.approx({row["step"]: row["loss"] for row in rows}, abs=1e-5)
    assert Image.open(folder / "curves.png").width > 500


def test_killed_and_resumed_it_ends_the_same(small, problems, unbroken, tmp_path, monkeypatch) -> None:
    folder, rows = unbroken
    real = Trainer.update

    def die(self: Trainer, number: int) -> dict[str, float]:
        if number == 3:
            raise KeyboardInterrupt
        return real(self, number)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "update", die)
        train(small, problems, tmp_path)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')  # cut off in the middle of a line
    assert train(small, problems, tmp_path) == rows
    for name, weight in load_policy(str(folder / "last")).state_dict().items():
        assert torch.equal(weight, load_policy(str(tmp_path / "last")).state_dict()[name]), name


@pytest.mark.parametrize(
    "change",
    [
        {"memory": False},
        {"reward": "probability"},
        {"layer_from_llm": False},
        {"rope_theta": 77.0},
        {"attention": "causal"},
        {"sampler": replace(SETTINGS.sampler, exploration="multinomial")},
        {"sampler": replace(SETTINGS.sampler, frame_rollouts=0)},
        {"objective": replace(SETTINGS.objective, balanced=False)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_ablation_changes_the_run(small, problems, unbroken, tmp_path, change) -> None:
    assert train(small, problems, tmp_path, replace(SETTINGS, **change)) != unbroken[1]


def test_training_stops_when_validation_no_longer_improves(small, problems, tmp_path) -> None:
    validation = replace(SETTINGS.validation, every=1, patience=1)
    settings = replace(SETTINGS, steps=9, validation=validation, optimisation=Optimisation(lr=0.0))
    assert len(train(small, problems, tmp_path, settings)) == 2, "the second validation is no better than the first"


def test_batches_answer_as_single_sets_do(small, problems) -> None:
    trainer = Trainer(small, problems, [], Path(problems[0].video).parent / "x", SETTINGS, Accelerator(cpu=True))
    asks = []
    for number, problem in enumerate(problems[:2]):
        question = trainer._ask(problem)
        masks = torch.rand(5, len(question.video), generator=torch.Generator().manual_seed(number)) < 0.3
        asks.append(Ask(question.prompt, question.video, masks))
    together = answer_all(small, asks, max_new_tokens=4)
    alone = [[answer_all(small, [replace(a, masks=m[None])], max_new_tokens=4)[0][0] for m in a.masks] for a in asks]
    assert together == alone
    assert together == answer_all(small, asks, max_new_tokens=4, together=3)


def test_the_reward_probability_is_that_of_the_right_reply(small, problems) -> None:
    settings = replace(SETTINGS, reward="probability")
    trainer = Trainer(small, problems, [], Path(problems[0].video).parent / "y", settings, Accelerator(cpu=True))
    asks = []
    for problem in problems[:2]:
        question = trainer._ask(problem)
        masks = torch.rand(3, len(question.video), generator=torch.Generator().manual_seed(0)) < 0.3
        asks.append(Ask(question.prompt, question.video, masks))
    worth = trainer._worth(asks, problems[:2])
    wanted = log_probabilities(small, asks, [problem.reply for problem in problems[:2]])
    assert worth == [pytest.approx(values.exp().tolist()) for values in wanted]
    assert all(0 < value < 1 for values in worth for value in values)


def test_a_video_is_encoded_once_for_all_its_questions(small, problems, tmp_path, monkeypatch) -> None:
    other = replace(problems[0], text="And what else?")
    whole = Trainer(small, problems, [], tmp_path, SETTINGS, Accelerator(cpu=True))
    none = Trainer(small, problems, [], tmp_path, replace(SETTINGS, encoded_gib=0.0), Accelerator(cpu=True))
    first, expected = whole._ask(problems[0]), none._ask(other)
    calls: list[object] = []
    encode = small.encode_frames
    monkeypatch.setattr(small, "encode_frames", lambda *args: calls.append(args) or encode(*args))
    again = whole._ask(other)
    assert not calls
    none._ask(other)
    assert len(calls) == 1, "nothing is kept within no bytes"
    assert torch.equal(again.embeds, expected.embeds)
    assert again.video.question == expected.video.question
    assert first.embeds.shape != again.embeds.shape


def test_encoded_videos_stay_within_their_limit(small, problems) -> None:
    def make() -> EncodedVideo:
        clip = read_clip(problems[0].video, small.frames)
        return EncodedVideo(small.encode_frames(clip.frames, frozenset()), clip.sha256, clip.rate)

    size = make().encoded.features.nbytes
    kept = EncodedVideos(2 * size)
    a, b = kept.get("a", make), kept.get("b", make)
    assert kept.get("a", make) is a
    kept.get("c", make)  # b was used longest ago
    assert kept.size == 2 * size
    assert kept.get("a", make) is a
    assert kept.get("b", make) is not b


def test_settings_that_cannot_be_are_refused(small, problems, tmp_path) -> None:
    with pytest.raises(ValueError, match="steps=0, expected at least 1"):
        replace(SETTINGS, steps=0)
    with pytest.raises(ValueError, match=r"rope_theta=0\.5, expected a base above 1, or null for the LLM's"):
        replace(SETTINGS, rope_theta=0.5)

    class Three(Accelerator):
        num_processes = 3

    with pytest.raises(ValueError, match="questions=2 a step cannot be shared by 3 processes"):
        Trainer(small, problems, [], tmp_path, SETTINGS, Three(cpu=True))

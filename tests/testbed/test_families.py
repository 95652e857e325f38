"""What the families of the test bed state about themselves, against the stock classes; untrained models."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cacovid.backbones import BACKBONES, VideoRequest
from cacovid.evidence import token_frames
from cacovid.registry import method_class
from cacovid.testbed.data import load_split
from cacovid.testbed.families import FAMILIES, QWEN2_5_VL, Family
from cacovid.testbed.families.qwen2_5_vl import patchify, unpatchify
from cacovid.testbed.join import _solve_projector
from cacovid.testbed.packing import VIDEO_TOKENS, Asked, answer_logits, pack
from cacovid.testbed.render import REACH, moment_frames
from cacovid.testbed.scene import CELLS, MOMENTS
from cacovid.testbed.sight import read_frames, to_float
from cacovid.testbed.words import LETTERS
from cacovid.video import read_clip


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES, scope="module")
def family(request) -> Family:
    return request.param


@pytest.fixture(scope="module")
def parts(family: Family):
    processor = family.build_processor()
    return processor, family.build_model(processor).eval()


@pytest.fixture(scope="module")
def documents():
    return load_split("validation", limit_videos=1)


def test_names_are_the_backbones(family: Family) -> None:
    assert BACKBONES[family.name].model_class is family.model_class


def test_words_and_letters_are_single_tokens(parts) -> None:
    tokenizer = parts[0].tokenizer
    assert all(len(tokenizer(text).input_ids) == 1 for text in (*LETTERS, " red", " hourglass", " 7", " four"))


@torch.no_grad()
def test_packed_questions_read_as_the_backbone_reads_them_alone(family: Family, parts, documents) -> None:
    """Features, positions and text of the training form against the adapter, whose r = 1 is the stock model."""
    processor, model = parts
    clip = read_clip(documents[0]["video"], family.frames)
    tokens = family.video_tokens(model, family.pixels(processor, clip.frames)[None])[0]
    asked = [Asked(family.chat.lead + d["prompt"] + family.chat.tail, d["answer"], d["kind"]) for d in documents]
    logits, _, first = answer_logits(
        model, pack(family, processor.tokenizer, [np.arange(VIDEO_TOKENS)], [asked]), tokens
    )
    backbone = BACKBONES[family.name](model, processor)
    assert backbone.frames == family.frames
    for doc, place in zip(documents[:3], first[:3], strict=True):
        content = [{"type": "video"}, {"type": "text", "text": doc["prompt"]}]
        prompt = backbone.template([{"role": "user", "content": content}])
        request = VideoRequest(clip.frames, prompt, clip.sha256, clip.rate)
        full = method_class("full")(retention=1.0)
        alone = backbone.answer([request], full, max_new_tokens=1, keep_logits=True)[0]
        assert alone.spent.video_tokens == VIDEO_TOKENS and alone.grid == (5, 5)
        torch.testing.assert_close(logits[place], alone.logits[0], atol=2e-4, rtol=1e-4)


def test_what_training_stores_is_what_the_processor_makes(family: Family, parts, documents) -> None:
    frames = read_frames(Path(documents[0]["video"]), family.frames)
    pixels = family.pixels(parts[0], frames)
    assert pixels.shape == (MOMENTS, family.channels, 80, 80)
    stored = ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    torch.testing.assert_close(to_float(stored), pixels, atol=1.01 / 255, rtol=0)


def test_patches_and_pictures_are_one_thing_in_two_orders(documents) -> None:
    processor = QWEN2_5_VL.build_processor()
    frames = read_frames(Path(documents[0]["video"]), QWEN2_5_VL.frames)
    channels_first = torch.from_numpy(frames).permute(0, 3, 1, 2)
    rows = processor.video_processor(
        videos=[channels_first], do_sample_frames=False, cap_pixels_per_frame=False, return_tensors="pt"
    )["pixel_values_videos"]
    pairs = unpatchify(rows)
    assert torch.equal(patchify(pairs), rows)
    # As pictures they are the frames, two a moment: halved by any means they look alike.
    halved = torch.nn.functional.avg_pool2d(channels_first.float() / 127.5 - 1, 2)
    assert (pairs.view(32, 3, 80, 80) - halved).abs().mean() < 0.05


def test_every_moment_is_in_its_pair_of_frames() -> None:
    """A moment shows from half a step before it on: the pair's first frame always has its own moment."""
    read = np.round(np.linspace(0, 60, QWEN2_5_VL.frames)).astype(int)
    shown = (read + 2) // 4
    assert (shown[::2] == np.arange(MOMENTS)).all()
    assert (shown[1::2] == np.arange(MOMENTS)).sum() == 12  # the first four pairs end within the next moment
    assert token_frames(moment_frames(), read.tolist(), 2, REACH) == list(range(MOMENTS))


@torch.no_grad()
def test_the_projector_is_solved_for_the_tokens_asked_for(family: Family) -> None:
    model = family.build_model(family.build_processor())
    pixels = torch.randint(0, 256, (40, family.channels, 80, 80), dtype=torch.uint8)
    owner, name = family.last_layer(model)
    before = family.frame_tokens(model, to_float(pixels))
    layer = owner.get_submodule(name)
    layer.weight.zero_()
    layer.bias.zero_()
    assert before.shape == (40, CELLS, 128)
    _solve_projector(family, model, pixels, before, torch.device("cpu"))
    after = family.frame_tokens(model, to_float(pixels))
    assert (after - before).square().mean() < 0.05 * before.var()


def test_sight_trains_all_that_makes_tokens_and_nothing_else(family: Family, parts) -> None:
    model = parts[1]
    trained = {id(p) for module in family.sight(model).values() for p in module.parameters()}
    trained |= {id(p) for module in family.beside(model).values() for p in module.parameters()}
    trained |= {id(p) for p in model.model.language_model.parameters()}
    assert trained == {id(p) for p in model.parameters()}

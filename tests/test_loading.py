"""Checkpoints and prompts: what loads answers as before, and what does not is refused with words."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, Qwen2Config

from cacovid.backbones import LlavaOnevision, VideoRequest, load_backbone
from cacovid.errors import CheckpointError, PromptError
from cacovid.registry import build_method

FULL = build_method("full")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint folder as published: safetensors, configuration, processor and tokenizer files."""
    from tiny import tiny_model, tiny_processor

    path = tmp_path_factory.mktemp("checkpoint")
    tiny_model().save_pretrained(path)
    tiny_processor().save_pretrained(path)
    return path


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_saved_checkpoint_answers_as_before(folder, build_backbone, ask, attention):
    before = build_backbone(attention)
    after = LlavaOnevision.load(str(folder), attn_implementation=attention)
    assert after.decoder.config._attn_implementation == attention
    request = ask(after)
    assert request.prompt == ask(before).prompt, "the chat template came with it"
    a, b = (x.answer([request], FULL, max_new_tokens=6, keep_logits=True)[0] for x in (before, after))
    assert a.text == b.text
    for x, y in zip(a.logits, b.logits, strict=True):
        assert torch.equal(x, y)


def test_half_precision_on_request(folder, ask):
    backbone = LlavaOnevision.load(str(folder), dtype="bfloat16")
    method = build_method("attention_topk", retention=0.25)
    video = backbone.encode([ask(backbone)], method.needs)[0]
    assert video.features.dtype == torch.bfloat16
    assert video.received_attention.dtype == torch.float32, "scores stay float32"
    assert backbone.answer([ask(backbone)], method, max_new_tokens=2)[0].spent.kept == 24


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*nothing: expected a folder with config.json"):
        LlavaOnevision.load(str(tmp_path / "nothing"))
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*: expected a folder with config.json, or a hub id"):
        LlavaOnevision.load(str(tmp_path))


def test_a_name_that_cannot_be_fetched_is_refused(monkeypatch):
    def unreachable(*_args, **_settings):
        raise OSError("we couldn't connect")

    monkeypatch.setattr(AutoConfig, "from_pretrained", unreachable)
    with pytest.raises(CheckpointError, match=r"pretrained='no/such' could not be read: we couldn't .*`testbed`"):
        LlavaOnevision.load("no/such")


def test_a_checkpoint_of_another_family_is_refused(tmp_path):
    Qwen2Config(hidden_size=8, num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"is a qwen2 checkpoint, expected llava_onevision \(such as llava-hf"):
        LlavaOnevision.load(str(tmp_path))


def test_missing_weights_are_named(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    gone = next(name for name in weights if "layers.2.mlp.up_proj" in name)
    del weights[gone]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 weights, first \['.*layers.2.mlp.up_proj.weight'\]"):
        LlavaOnevision.load(str(tmp_path))


def test_sliding_window_attention_is_refused(build_backbone):
    backbone = build_backbone("sdpa")
    backbone.model.config.text_config.layer_types = ["full_attention"] * 3 + ["sliding_attention"]
    with pytest.raises(CheckpointError, match=r"uses sliding-window attention, expected full attention"):
        LlavaOnevision(backbone.model, backbone.processor)


@pytest.mark.parametrize("videos", [0, 2])
def test_a_prompt_needs_exactly_one_video(backbone, ask, videos):
    frames = ask(backbone).frames
    content = [{"type": "video"}] * videos + [{"type": "text", "text": "What is it?"}]
    prompt = backbone.template([{"role": "user", "content": content}])
    with pytest.raises(PromptError, match=rf"holds {videos} video placeholders \(<video>\), expected exactly 1"):
        backbone.answer([VideoRequest(frames, prompt, "clip")], FULL)


@pytest.mark.parametrize("shape", [(0, 32, 32, 3), (4, 32, 32), (4, 3, 32, 32)])
def test_frames_of_another_shape_are_refused(backbone, ask, shape):
    request = VideoRequest(np.zeros(shape, np.uint8), ask(backbone).prompt, "clip")
    with pytest.raises(PromptError, match=r"frames of shape \(.*expected \(F, height, width, 3\) with F >= 1"):
        backbone.answer([request], FULL)


def test_the_question_is_the_users_words(backbone, ask):
    video = backbone.encode([ask(backbone, text="What is it?")], frozenset())[0]
    ids = backbone.prompt_ids(ask(backbone, text="What is it?").prompt)[1]
    assert backbone.tokenizer.decode(ids[video.question]).strip() == "What is it?"
    assert len(video.question_tokens) == video.question.stop - video.question.start < len(video.suffix)


def test_a_family_of_one_frame_size_has_no_pixel_limits(folder):
    with pytest.raises(CheckpointError, match=r"max_pixels=1000: llava_ov reads every frame in one size; leave them"):
        load_backbone("llava_ov", str(folder), device="cpu", max_pixels=1000)

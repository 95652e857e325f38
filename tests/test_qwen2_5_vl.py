"""What is Qwen2.5-VL's own: temporal patches, window order, three position axes, resolution as the video has it."""

import numpy as np
import pytest
import torch
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_window_index

from cacovid.backbones import Qwen2_5_VL, VideoRequest, load_backbone
from cacovid.errors import CheckpointError, MethodError, PromptError
from cacovid.registry import build_method
from tiny import tiny_policy_folder
from tiny_qwen import tiny_qwen_model, tiny_qwen_processor

pytestmark = pytest.mark.parametrize("family", ["qwen2_5_vl"], indirect=True, scope="session")
FULL = build_method("full")


@pytest.mark.parametrize("frames", [1, 2, 7])
@pytest.mark.parametrize("size", [(40, 60), (72, 24)])
@pytest.mark.parametrize("rate", [0.0, 0.05, 0.3, 2.0])
def test_whatever_the_clock_and_the_size_it_answers_as_the_stock_model(backbone, ask, stock, frames, size, rate):
    made = ask(backbone, frames, size=size)
    request = VideoRequest(made.frames, made.prompt, made.clip, rate)
    ours = backbone.answer([request], FULL, max_new_tokens=4, keep_logits=True)[0]
    expected = stock(backbone, request, max_new_tokens=4)
    assert ours.ids == expected.ids
    assert all(torch.equal(a, b) for a, b in zip(ours.logits, expected.logits, strict=True))


def test_the_clock_and_the_size_are_read(backbone, ask):
    """Guards the test above."""
    made = ask(backbone, 7)
    slow, fast = (
        backbone.encode([VideoRequest(made.frames, made.prompt, "", rate)], frozenset())[0] for rate in (1, 4)
    )
    assert torch.equal(slow.features, fast.features) and not torch.equal(slow.axes, fast.axes)
    assert slow.grid == (4, 6) and slow.frames == 4, "seven frames are four pairs, the last one repeated"
    assert backbone.encode([ask(backbone, 7, size=(72, 24))], frozenset())[0].grid == (9, 3)


def test_positions_count_seconds_rows_and_columns(backbone, ask):
    made = ask(backbone, 6)
    video = backbone.encode([VideoRequest(made.frames, made.prompt, "", 1.0)], frozenset())[0]
    time, height, width = (video.axes[video.span] - len(video.prefix)).T.view(3, 3, 4, 6)
    assert time[:, 0, 0].tolist() == [0, 4, 8], "pairs are two seconds apart, two positions a second"
    assert height[0, :, 0].tolist() == [0, 1, 2, 3] and width[0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert video.newline.shape == (0, 48) and video.rows == len(video.prefix) + 72 + len(video.suffix)


def test_kept_tokens_keep_their_axes_and_decoding_goes_on_behind_the_text(backbone, ask):
    method = build_method("uniform", retention=0.25)
    made = ask(backbone, 20)
    video = backbone.encode([VideoRequest(made.frames, made.prompt, "", 0.2)], frozenset())[0]
    out = method.compress(video, 60)
    sequence = backbone.sequence(video, out, 60, method)
    assert torch.equal(sequence.positions[sequence.span], video.axes[video.span][out.position])
    assert torch.equal(sequence.positions[-1], video.axes[-1])
    assert sequence.next_position == int(video.axes[-1, 0]) + 1 < int(video.axes.max()), "time runs past the text here"


def test_the_question_is_the_users_words(backbone, ask):
    request = ask(backbone, text="What is it?")
    ids = backbone.prompt_ids(request.prompt)[1]
    video = backbone.encode([request], frozenset())[0]
    assert backbone.tokenizer.decode(ids[video.question]) == "What is it?"


@pytest.fixture(scope="module")
def tower(eager, ask):
    """The last block's own view of a video (F = 3, H = 5, W = 7): queries and keys in window order, and that order."""
    request = ask(eager, 6, size=(40, 56))
    eager.limit_pixels(1, 40 * 56)
    seen = {}
    attention = eager.model.model.visual.blocks[-1].attn
    hook = attention.register_forward_pre_hook(
        lambda _m, args, kwargs: seen.update(hidden=args[0], rotary=kwargs["position_embeddings"]), with_kwargs=True
    )
    needs = frozenset({"received_attention", "keys", "patches"})
    video = eager.encode([request], needs)[0]
    hook.remove()
    with torch.inference_mode():
        query, key, _ = attention.qkv(seen["hidden"]).view(3 * 140, 3, 4, 8).unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *seen["rotary"])
    thw = torch.tensor([[3, 10, 14]])
    order, _ = get_vision_window_index(thw, spatial_merge_size=2, window_size=16, patch_size=4)
    yield video, query, key, order.tolist()
    eager.limit_pixels(*eager.model.config.cacovid_pixels)


@pytest.fixture(scope="module")
def ask():
    from conftest import make_request

    return make_request


def test_received_attention_is_the_mean_over_heads_queries_and_the_four_patches(eager, tower):
    video, query, key, order = tower
    assert video.grid == (5, 7) and order != sorted(order), "windows reorder this grid"
    found = torch.empty(3, 140)
    for f in range(3):
        q, k = (x[140 * f : 140 * f + 140].transpose(0, 1) for x in (query, key))
        found[f] = (q @ k.transpose(1, 2) * 8**-0.5).softmax(-1).mean((0, 1))
    for f, s in ((0, 0), (0, 3), (1, 20), (2, 34)):
        place = order.index(35 * f + s) - 35 * f  # where the tower has that token
        expected = found[f, 4 * place : 4 * place + 4].mean()
        torch.testing.assert_close(video.received_attention[f, s], expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(video.received_attention.sum(1) * 4, torch.ones(3))


def test_keys_carry_the_towers_rotary_embedding(tower):
    video, _, key, order = tower
    assert video.keys.shape == (3, 35, 4, 8)
    for f, s in ((0, 1), (2, 33)):
        place = order.index(35 * f + s)
        torch.testing.assert_close(video.keys[f, s], key[4 * place : 4 * place + 4].mean(0), rtol=1e-5, atol=1e-6)


def test_patches_merge_into_the_features_in_their_order(eager, tower):
    video = tower[0]
    with torch.inference_mode():
        merged = eager.model.model.visual.merger(video.patches.flatten(0, 1))
    torch.testing.assert_close(merged, video.flat, rtol=1e-5, atol=1e-5)


def test_pixel_limits(backbone, ask, family):
    own = Qwen2_5_VL(tiny_qwen_model(), tiny_qwen_processor())
    assert own.pixel_limits == (1024, 2048)
    own.limit_pixels(None, 1024)
    assert own.pixel_limits == (1024, 1024)
    assert own.encode([ask(own)], frozenset())[0].grid == (3, 4)
    with pytest.raises(CheckpointError, match=r"min_pixels=4096, max_pixels=1024: expected 0 < min_pixels <= max_pix"):
        own.limit_pixels(4096, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("qwen")
    tiny_qwen_model().save_pretrained(path)
    tiny_qwen_processor().save_pretrained(path)
    return path


@pytest.mark.parametrize("name", ["qwen2_5_vl", "auto"])
def test_a_saved_checkpoint_answers_as_before(folder, backbone, ask, name):
    after = load_backbone(name, str(folder), device="cpu", max_pixels=2048)
    assert isinstance(after, Qwen2_5_VL) and after.pixel_limits == backbone.pixel_limits
    a, b = (x.answer([ask(x)], FULL, max_new_tokens=6, keep_logits=True)[0] for x in (backbone, after))
    assert a.text == b.text and all(torch.equal(x, y) for x, y in zip(a.logits, b.logits, strict=True))


def test_what_it_cannot_be_is_refused(folder, backbone, ask, tmp_path):
    with pytest.raises(
        CheckpointError, match=r"is a qwen2_5_vl checkpoint, expected llava_onevision \(such as llava-hf"
    ):
        load_backbone("llava_ov", str(folder), device="cpu")
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(CheckpointError, match=r"is a qwen2 checkpoint, expected one of llava_onevision, qwen2_5_vl"):
        load_backbone("auto", str(tmp_path), device="cpu")
    model = tiny_qwen_model()
    model.config.vision_config.fullatt_block_indexes = [0]
    with pytest.raises(CheckpointError, match=r"last block 2 attends in windows, expected .* full attention \[0\]"):
        Qwen2_5_VL(model, tiny_qwen_processor())
    frames = np.zeros((2, 40, 60, 3), np.uint8)
    twice = ask(backbone).prompt.replace("<|video_pad|>", "<|video_pad|><|video_pad|>")
    with pytest.raises(PromptError, match=r"holds 2 video placeholders \(<\|video_pad\|>\), expected exactly 1"):
        backbone.answer([VideoRequest(frames, twice, "")], FULL)


def test_a_policy_for_another_kind_of_positions_is_refused(backbone, ask):
    method = build_method("cacovid", retention=0.25, policy=tiny_policy_folder())
    with pytest.raises(
        MethodError, match=r"made for a qwen2 with positions of one number a row, this LLM has three axes"
    ):
        backbone.answer([ask(backbone)], method)


def test_a_policy_reads_the_axes(backbone, ask):
    from cacovid.policy.network import CompressionPolicy

    policy = CompressionPolicy.from_llm(backbone.decoder.model)
    made = ask(backbone, 6)
    slow, fast = (backbone.encode([VideoRequest(made.frames, made.prompt, "", r)], frozenset())[0] for r in (0.1, 4.0))
    with torch.inference_mode():
        scores = [policy(v.embeds[None], v.span, v.frames, v.axes)[0] for v in (slow, fast)]
    assert not torch.equal(*scores)

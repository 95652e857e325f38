"""Counted FLOPs against torch's own counter on a real (tiny) model, and against published numbers."""

import pytest
from each_family import both_families
from torch.utils.flop_counter import FlopCounterMode

from cacovid.flops import DecoderShape
from cacovid.registry import build_method

QWEN2_7B = DecoderShape(
    layers=28, width=3584, heads=28, kv_heads=4, head_dim=128, feed_forward=18944, vocabulary=152064
)
TEXT, VIDEO = 101, 6272  # 100 prompt tokens and the newline token; 32 frames of 196


def measured(run):
    """FLOPs that torch counts in `run`: matrix products and convolutions."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@both_families
def test_the_vision_tower_exactly_as_torch_counts_it(eager, ask):
    videos = []
    counted = measured(lambda: videos.extend(eager.encode([ask(eager)], frozenset())))
    assert eager.vision_shape.video(videos[0].frames, videos[0].grid) == counted


CASES = [
    ("full", {}),
    ("uniform", {"retention": 0.25}),
    ("attention_topk", {"retention": 0.25}),
    ("attention_topk", {"retention": 0.25, "variant": "B1"}),
    ("attention_topk", {"retention": 0.25, "variant": "B3", "layer": 3}),
    ("uniform+attention_topk", {"retention": 0.25, "attention_topk.variant": "B1"}),
]


@both_families
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_the_llm_and_the_compressor_exactly_as_torch_counts_them(eager, ask, name, settings):
    method = build_method(name, **settings)
    request = ask(eager)
    answers = []
    counted = measured(lambda: answers.extend(eager.answer([request], method, max_new_tokens=4)))
    flops = answers[0].spent.flops
    assert len(answers[0].ids) == 4
    assert flops.total == counted
    assert (flops.compressor > 0) == ("attention_topk" in name)


def test_padding_of_a_batch_is_not_charged(eager, ask):
    method = build_method("attention_topk", retention=0.25, variant="B1")
    requests = [ask(eager, 6), ask(eager, 2, "A much longer question than the other one?")]
    batch = [a.spent for a in eager.answer(requests, method, max_new_tokens=4)]
    assert batch == [eager.answer([r], method, max_new_tokens=4)[0].spent for r in requests]


def test_hiding_at_decode_reads_less(eager, ask, hide_half):
    full = eager.answer([ask(eager)], build_method("full"), max_new_tokens=4)[0].spent
    hidden = eager.answer([ask(eager)], hide_half, max_new_tokens=4)[0].spent
    assert hidden.decode_visible < full.decode_visible
    assert hidden.flops.decode < full.flops.decode
    assert hidden.flops.prefill == full.flops.prefill


def qwen_ratio(kept: int, layer: int) -> float:
    rows = [TEXT + VIDEO] * layer + [TEXT + kept] * (28 - layer)
    full = QWEN2_7B.prefill([TEXT + VIDEO] * 28)
    return QWEN2_7B.prefill(rows) / full


def test_fastv_on_qwen2_7b():
    """K=2, r=.25 after the cut: layer average .3036 and FLOPs .285; before the LLM .230."""
    average = (2 + 26 * 0.25) / 28
    assert average == pytest.approx(0.3036, abs=5e-5)
    assert qwen_ratio(1568, layer=2) == pytest.approx(0.285, abs=5e-4)
    assert qwen_ratio(1568, layer=0) == pytest.approx(0.230, abs=5e-4)


def test_the_lookup_of_one_row_is_cheap_on_qwen2_7b():
    one_row = QWEN2_7B.attention_rows(1, TEXT + VIDEO)
    assert one_row / QWEN2_7B.prefill([TEXT + VIDEO] * 28) < 1e-3
    assert one_row == 2 * (3584 * (3584 + 6373 * 512) + 6373 * 3584)


def test_shapes_come_from_the_configuration(backbone):
    assert backbone.decoder_shape == DecoderShape(
        layers=4, width=48, heads=4, kv_heads=2, head_dim=12, feed_forward=80, vocabulary=261
    )
    assert (backbone.vision_shape.patches, backbone.vision_shape.patch_inputs) == (64, 48)

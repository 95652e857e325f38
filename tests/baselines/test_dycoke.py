"""DyCoke against the card's worked examples, the naive program, odd videos, its floor, and through the backbone."""

import dataclasses
import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines._dycoke_merging import changed, fill, kept_at, references, similarity, whole
from baselines.attention_topk import AttentionTopk
from baselines.dycoke import DyCoke, attention_row, look
from cacovid.compose import Composed
from cacovid.errors import BudgetError, MethodError
from cacovid.records import VideoTokens
from cacovid.solve import plan
from naive import dycoke as naive

FULL = "full"


def video_of(features: torch.Tensor) -> VideoTokens:
    row = features.new_zeros(1, features.shape[2])
    return VideoTokens(features, (1, features.shape[1]), row, row, row, slice(0, 1), "clip")


def noise(frames: int, size: int = 196, width: int = 8, seed: int = 0) -> VideoTokens:
    return video_of(torch.randn(frames, size, width, generator=torch.Generator().manual_seed(seed)))


def compress(video: VideoTokens, retention: float, **fields):
    method = DyCoke(retention=retention, **fields)
    return method.compress(video, method.budget(len(video)))


def counts(out, video: VideoTokens) -> list[int]:
    frame = out.position.div(video.tokens_per_frame, rounding_mode="floor")
    return frame.bincount(minlength=video.frames).tolist()


# --- TTM --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loop", "roles"),
    [
        ("released", [FULL, 0, 0, 2, FULL, 4, FULL, 6]),
        ("released", [FULL, 0, 0, 2, FULL, 4]),
        ("released", [FULL, 0, 0, 2, -1]),
        ("released", [FULL, 0, 0, 2, FULL, 4, 4, 6, -1]),
        ("released", [FULL, 0, FULL, 2]),  # the official code stops at one to four frames: its bounds, read on
        ("released", [FULL, 0, -1]),
        ("released", [FULL, 0]),
        ("released", [FULL]),
        ("fixed", [FULL, 0, 0, 2, FULL, 4, 4, 6]),
        ("fixed", [FULL, 0, 0, 2, FULL, 4, 4]),
        ("fixed", [FULL, 0, 0, 2, FULL]),
        ("fixed", [FULL]),
    ],
)
def test_a_roles_of_the_frames(loop, roles):
    assert references(len(roles), loop) == [f if role == FULL else role for f, role in enumerate(roles)]


def test_the_wider_window_of_the_extension_is_a_binary_tree():
    assert references(16, "fixed", 8) == [0, 0, 0, 2, 0, 4, 4, 6, 8, 8, 8, 10, 8, 12, 12, 14]
    assert whole(references(32, "fixed", 16)) == 2


@given(st.integers(5, 70))
def test_roles_are_those_of_the_released_loops(frames):
    assert references(frames) == naive.references(frames)


@pytest.mark.parametrize(("rate", "released", "fixed"), [(0.5, 4018, 3920), (0.7, 3098, 2960), (0.9, 2201, 2024)])
def test_b_tokens_of_32_frames(rate, released, fixed):
    for loop, count in (("released", released), ("fixed", fixed)):
        out = compress(noise(32), 0.01, accounting="decode", merging_rate=rate, loop=loop)
        assert len(out) == count


@pytest.mark.parametrize(("loop", "floor"), [("released", 1764), ("fixed", 1568)])
def test_b_the_floor_is_the_whole_frames(loop, floor):
    assert len(compress(noise(32), 0.01, accounting="decode", merging_rate=1.0, loop=loop)) == floor
    at_floor = compress(noise(32), floor / 6272, loop=loop)
    assert set(counts(at_floor, noise(32))) == {0, 196}
    with pytest.raises(BudgetError, match=rf"its floor is {floor} tokens"):
        compress(noise(32), (floor - 1) / 6272, loop=loop)


def test_b_the_count_is_truncated_in_double_precision():
    assert [kept_at(rate, 10) for rate in (0.7, 0.8, 0.9)] == [3, 1, 0], "1 - 0.9 is a little less than 0.1"
    assert kept_at(0.7, 196) == 58


DEGREES = torch.tensor(
    [
        [0, 0, 0, 0],
        [10, 40, 20, 80],
        [50, 5, 70, 30],
        [60, 90, 75, 100],
        [0, 90, 180, 270],
        [30, 91, 200, 275],
        [1, 2, 3, 4],
        [1, 22, 13, 74],
    ]
)


def test_c_eight_frames_by_hand():
    angles = DEGREES.deg2rad()
    features = torch.stack([angles.cos(), angles.sin()], -1)
    refs = references(8)
    quota = fill(refs, 4, [2] * 8)
    flat = [0, 1, 2, 3, 7, 5, 10, 8, 13, 15, 16, 17, 18, 19, 20, 22, 24, 25, 26, 27, 31, 29]
    assert changed(features, refs, quota, "similarity").tolist() == flat
    assert changed(features, refs, quota, "raster").tolist() == sorted(flat)
    video = video_of(features)
    out = compress(video, 22 / 32, order="similarity")
    assert out.position.tolist() == flat
    assert torch.equal(out.tokens, video.flat[flat])
    assert torch.equal(out.owner[out.position], torch.arange(22))
    assert compress(video, 22 / 32).position.tolist() == sorted(flat)


@settings(max_examples=30, deadline=None)
@given(
    frames=st.integers(1, 11),
    size=st.integers(1, 9),
    rate=st.floats(0, 1),
    loop=st.sampled_from(["released", "fixed"]),
    order=st.sampled_from(["raster", "similarity"]),
    seed=st.integers(0, 99),
)
def test_fast_equals_naive(frames, size, rate, loop, order, seed):
    features = noise(frames, size, 6, seed).features
    refs = references(frames, loop)
    quota = fill(refs, size, [kept_at(rate, size)] * frames)
    fast = changed(features, refs, quota, order)
    assert torch.equal(fast, naive.changed(features, refs, quota, order))
    assert len(fast) == sum(quota)


@pytest.mark.parametrize("label", sorted(naive.CASES))
def test_the_benchmarked_pairs_agree(label):
    make, fast, slow = naive.CASES[label]
    inputs = make(9, 20, 16)
    assert torch.equal(fast(*inputs), slow(*inputs))


def test_only_the_angle_counts():
    video = noise(8, 12)
    scale = torch.rand(8, 12, 1, generator=torch.Generator().manual_seed(3)) * 9 + 0.1
    scaled = video_of(video.features * scale)
    assert torch.equal(compress(video, 0.6).position, compress(scaled, 0.6).position)


def test_released_order_is_the_same_set_in_another_order():
    video = noise(32, 16)
    raster, released = compress(video, 0.5), compress(video, 0.5, order="similarity")
    assert not torch.equal(raster.position, released.position)
    assert torch.equal(raster.position, released.position.sort().values)
    frames = released.position // 16
    assert (frames.diff() >= 0).all(), "frames stay in time order"


def test_identical_frames_keep_the_earliest_places():
    for dtype in (torch.float32, torch.bfloat16):
        frame = torch.randn(1, 9, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
        features = frame.expand(4, -1, -1).contiguous()
        scores = similarity(features, references(4, "fixed"))
        assert torch.equal(scores, torch.tensor([[0.0], [1], [1], [1]]).expand(4, 9)), "exactly one: ties are ties"
        out = compress(video_of(features), 15 / 36, loop="fixed")
        assert out.position.tolist() == [*range(9), 9, 10, 18, 19, 27, 28]


def test_zero_vectors_give_no_nan():
    features = noise(4, 6).features.clone()
    features[0, 2] = 0
    features[1] = 0
    scores = similarity(features, references(4, "fixed"))
    assert scores.isfinite().all()
    assert (scores[1] == 0).all()
    assert scores[2, 2] == 0
    assert len(compress(video_of(features), 0.6)) == 14


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_features_are_scored_in_float32(dtype):
    features = noise(8, 12, 64).features.to(dtype)
    out = compress(video_of(features), 0.6)
    refs = references(8)
    assert torch.equal(similarity(features, refs), similarity(features.float(), refs))
    assert out.tokens.dtype == dtype
    assert torch.equal(out.position, compress(video_of(features.float()), 0.6).position)
    assert torch.equal(out.tokens, features.flatten(0, 1)[out.position])


def test_features_that_carry_a_gradient_keep_it():
    features = noise(4, 6).features.requires_grad_()
    compress(video_of(features), 0.8).tokens.sum().backward()
    assert (features.grad != 0).any()


# --- budget -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["released", "fixed"])
@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 6, 7, 8, 9, 32])
@pytest.mark.parametrize("retention", [0.55, 0.3, 0.25, 0.125, 1 / 300])
def test_extended_it_meets_every_budget_to_the_token(loop, frames, retention):
    video = noise(frames, 16)
    retention = max(retention, 1 / len(video))
    method = DyCoke(retention=retention, loop=loop, extend=True)
    out = method.compress(video, method.budget(len(video)))
    assert len(out) == round(retention * len(video))
    assert method.slack(video) == 0
    assert (out.position.diff() > 0).all()
    assert torch.equal(out.tokens, video.flat[out.position])


@pytest.mark.parametrize("loop", ["released", "fixed"])
def test_r_1_is_the_identity_for_any_number_of_frames(loop):
    for frames in (1, 2, 3, 4, 5, 9):
        video = noise(frames, 6)
        out = compress(video, 1.0, loop=loop)
        assert torch.equal(out.tokens, video.flat)
        assert torch.equal(out.owner, torch.arange(len(video)))


def test_exact_rounding_spreads_the_rest_and_released_leaves_it():
    video, budget = noise(32), 1764 + 23 * 58 + 10
    exact = compress(video, budget / 6272)
    assert len(exact) == budget
    assert sorted(set(counts(exact, video))) == [58, 59, 196]
    method = DyCoke(retention=budget / 6272, rounding="released")
    out = method.compress(video, budget)
    assert len(out) == 3098
    assert method.slack(video) == 10


@pytest.mark.parametrize(("retention", "share"), [(0.10, 7), (0.15, 18), (0.20, 28)])
def test_the_extension_has_one_whole_frame_in_sixteen(retention, share):
    """The card's numbers of its option (b)."""
    video = noise(32)
    out = compress(video, retention, extend=True, rounding="released")
    assert counts(out, video) == ([196] + [share] * 15) * 2


@pytest.mark.parametrize(
    ("budget", "window", "frames"), [(391, 16, 1), (392, 16, 2), (1254, 8, 4), (941, 4, 4), (783, 4, 2)]
)
def test_whole_frames_of_the_extension(budget, window, frames):
    out = compress(noise(32), budget / 6272, extend=True, window=window)
    assert len(out) == budget
    assert sum(count == 196 for count in counts(out, noise(32))) == frames


def test_below_one_frame_the_extension_keeps_evenly_spaced_tokens_of_the_first():
    assert compress(noise(32), 4 / 6272, extend=True).position.tolist() == [0, 65, 130, 195]


def test_above_the_floor_the_extension_changes_nothing():
    video = noise(32)
    for retention in (1764 / 6272, 0.5, 0.9):
        out, extended = compress(video, retention), compress(video, retention, extend=True)
        assert torch.equal(out.position, extended.position)


@pytest.mark.parametrize(
    ("frames", "fields", "words"),
    [
        (
            32,
            {"retention": 0.25},
            r"DyCoke keeps 9 of 32 frames whole: its floor is 1764 tokens; got retention=0.25 \(1568 of 6272 video "
            r"tokens\); use retention >= 0.2813, loop='fixed' \(floor 1568\), or extend=True, which is not the "
            r"authors'",
        ),
        (32, {"retention": 0.2, "loop": "fixed"}, r"keeps 8 of 32 .* use retention >= 0.25, or extend=True"),
        (1, {"retention": 0.5}, r"keeps 1 of 1 frames whole: its floor is 196 tokens; .* retention >= 1.0, or extend"),
        (
            9,
            {"retention": 0.95},
            r"loses the last of 9 frames, an odd number: 1568 tokens at most; got retention=0.95 .* use loop='fixed', "
            r"retention <= 0.8888, or 1",
        ),
        (
            32,
            {"retention": 0.6, "accounting": "decode"},
            r"merging_rate=0.7 leaves 3098 video tokens for decoding to read; got retention=0.6 .* use retention <= "
            r"0.4939, 1, or a lower merging_rate",
        ),
    ],
)
def test_budgets_that_cannot_be_met_are_refused(frames, fields, words):
    with pytest.raises(BudgetError, match=words):
        compress(noise(frames), **fields)


def test_the_ways_out_of_a_refusal_work():
    assert len(compress(noise(32), 0.2813)) == round(0.2813 * 6272)
    assert len(compress(noise(32), 0.25, loop="fixed")) == 1568
    assert len(compress(noise(9), 0.8888)) == round(0.8888 * 9 * 196)
    assert len(compress(noise(9), 0.95, loop="fixed")) == round(0.95 * 9 * 196)
    assert len(compress(noise(32), 0.4939, accounting="decode")) == 3098


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"merging_rate": 1.1}, r"merging_rate=1.1, expected 0 <= merging_rate <= 1: the share that goes"),
        ({"pruning_rate": -0.1}, r"pruning_rate=-0.1, expected 0 <= pruning_rate <= 1"),
        ({"layer": 0}, r"layer=0, expected >= 1: the attention comes from the layer before it"),
        ({"window": 12}, r"window=12, expected a power of two >= 4"),
        ({"window": 2}, r"window=2, expected a power of two >= 4"),
        ({"gate": "open"}, r"gate='open', expected one of 'code', 'hold'"),
        ({"loop": "open"}, r"loop='open', expected one of 'released', 'fixed'"),
        ({"extend": True, "accounting": "decode"}, r"extend=True goes below the floor of accounting='prefill'"),
    ],
)
def test_bad_settings_are_refused(fields, words):
    with pytest.raises(MethodError, match=words):
        DyCoke(**fields)


def test_the_solver_names_the_floor_too(backbone):
    shape = backbone.decoder_shape
    with pytest.raises(BudgetError, match=r"cannot meet retention=0.2 as layer_average.* retention >= 0.2812"):
        plan(DyCoke(retention=0.2), noise(32), shape, "layer_average")
    solved = plan(DyCoke(retention=0.5), noise(32, 16, 48), shape, "flops")
    assert solved.method.schedule(noise(32, 16, 48), 4) == [solved.budget] * 4
    assert 200 < solved.budget <= 256, "what the cosines cost is taken off the tokens"
    with pytest.raises(BudgetError, match=r"accounting='decode' the prefill does not hang on r; use budget=nominal"):
        plan(DyCoke(retention=0.2, accounting="decode"), noise(32), shape, "flops")


def test_flops_are_the_norms_and_one_product_a_pruned_token():
    video = noise(32, 16)
    assert DyCoke().compressor_flops(video, 256) == 2 * 16 * 8 * (32 + 23)
    assert DyCoke().compressor_flops(video, 512) == 0


# --- DP ---------------------------------------------------------------------------------------------------------

STEPS = [
    [0.2, 0.1, 0.05, 0.30, 0.02, 0.08, 0.01, 0.04, 0.15, 0.05],
    [0.2, 0.1, 0.06, 0.29, 0.02, 0.09, 0.01, 0.03, 0.1, 0.05, 0.05],
    [0.1, 0.1, 0.30, 0.05, 0.02, 0.01, 0.20, 0.02, 0.1, 0.05, 0.03, 0.02],
]
SPAN = slice(2, 8)  # five tokens of the pruned range and the last video token behind it


def walk(gate: str) -> list[list[int] | None]:
    """Cache positions of the video tokens that each step of D reads; None = all."""
    memo: dict[str, object] = {}
    out = []
    for row in STEPS:
        keep = look(attention_row(torch.tensor([row])[:, SPAN]), kept_at(0.6, 5), memo, gate, 0.9)
        out.append(None if keep is None else (SPAN.start + keep).tolist())
    return out


def test_d_three_steps_by_hand():
    assert walk("code") == [[3, 5, 7], None, [2, 6, 7]]
    assert walk("hold") == [[3, 5, 7], [3, 5, 7], [2, 6, 7]]
    rows = [attention_row(torch.tensor([row])[:, SPAN]) for row in STEPS]
    cosines = [torch.cosine_similarity(a, b, dim=0).item() for a, b in pairwise(rows)]
    assert cosines == pytest.approx([0.9986, 0.3163], abs=1e-4)


def test_the_row_is_the_mean_over_heads_not_the_maximum():
    heads = torch.tensor([[0.9, 0.0, 0.5, 0.1], [0.0, 0.4, 0.5, 0.1]])
    assert attention_row(heads).tolist() == pytest.approx([0.45, 0.2, 0.5])


@pytest.mark.parametrize("gate", ["code", "hold"])
def test_looking_equals_naive(gate):
    generator = torch.Generator().manual_seed(0)
    row, ours, theirs, chosen = torch.rand(40, generator=generator), {}, {}, []
    for _ in range(12):
        row = row + 0.2 * torch.rand(40, generator=generator)
        row = row.roll(7) if torch.rand((), generator=generator) < 0.5 else row
        fast, slow = look(row, 9, ours, gate, 0.95), naive.look(row, 9, theirs, gate, 0.95)
        assert (fast is None) == (slow is None)
        assert fast is None or torch.equal(fast, slow)
        chosen.append(None if fast is None else tuple(fast.tolist()))
    assert len(set(chosen)) > 3
    assert (None in chosen) == (gate == "code")


@pytest.mark.parametrize("tokens", [1, 2])
def test_one_or_two_video_tokens_in_the_cache(tokens):
    heads = torch.rand(4, tokens, generator=torch.Generator().manual_seed(0))
    memo: dict[str, object] = {}
    for _ in range(3):
        keep = look(attention_row(heads), kept_at(0.8, tokens - 1), memo, "hold", 0.9)
        assert keep.tolist() == [tokens - 1], "the last video token is always read"


def test_the_layer_decides_once_and_the_layers_behind_it_follow():
    def state(layer: int):
        return SimpleNamespace(video=noise(8, 16), layers=[None] * 6, memo=memo, attention=lambda: asked(layer))

    def asked(layer: int):
        lookups.append(layer)
        return torch.rand(4, 64, generator=torch.Generator().manual_seed(0))

    memo: dict[str, object] = {}
    lookups: list[int] = []
    method = DyCoke(retention=0.5, layer=3)
    keeps = [method.visible(layer, 0, state(layer), 64) for layer in range(6)]
    assert lookups == [3]
    assert keeps[:3] == [None] * 3
    assert len(keeps[3]) == kept_at(0.8, 63) + 1
    assert keeps[3] is keeps[4] is keeps[5]
    with pytest.raises(MethodError, match=r"layer=6, expected 1 <= layer < 6: this model has 6 decoder layers"):
        DyCoke(layer=6, retention=0.5).visible(0, 0, state(0), 64)
    assert DyCoke(layer=6).visible(0, 0, state(0), 128) is None, "at r = 1 it is off"


# --- through the backbone ---------------------------------------------------------------------------------------

ALWAYS = {"gate": "hold", "threshold": -1.0}  # the first step's choice for all of them: a constant count


def answer(backbone, request, **fields):
    fields = {"retention": 0.5, "layer": 2, **fields}
    return backbone.answer([request], DyCoke(**fields), max_new_tokens=6, keep_logits=True)[0]


def test_e_the_first_answer_token_never_depends_on_dp(backbone, ask):
    request = ask(backbone)
    settings = [{}, {"pruning_rate": 0.5}, {"layer": 3}, {"gate": "hold"}, {"pruning_rate": 0.0}]
    answers = [answer(backbone, request, **fields) for fields in settings]
    for other in answers[1:]:
        assert torch.equal(other.logits[0], answers[0].logits[0])
        assert torch.equal(other.kept, answers[0].kept)
    assert not torch.equal(answers[0].logits[1], answers[-1].logits[1]), "but the next ones do"


def test_e_text_does_not_matter_to_ttm(backbone, ask):
    one, other = (answer(backbone, ask(backbone, text=text)) for text in ("What is it?", "Who?"))
    assert torch.equal(one.kept, other.kept)


def test_e_without_dp_nothing_is_hidden(backbone, ask):
    spent = answer(backbone, ask(backbone), pruning_rate=0.0).spent
    assert spent.decode_visible == 48
    assert spent.layers == (48,) * 4


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_what_decoding_reads_is_audited(backbone, ask, layer):
    spent = answer(backbone, ask(backbone), layer=layer, **ALWAYS).spent
    read = kept_at(0.8, 47) + 1
    assert spent.decode_visible == pytest.approx((layer * 48 + (4 - layer) * read) / 4)
    assert spent.kept == spent.asked == 48, "nothing is evicted"
    assert spent.flops.decode < answer(backbone, ask(backbone), pruning_rate=0.0).spent.flops.decode


def test_accounting_decode_reads_r_of_the_video_and_prefills_what_k_leaves(backbone, ask):
    request, fields = ask(backbone), {"retention": 0.25, "accounting": "decode", "merging_rate": 0.5}
    spent = answer(backbone, request, **fields, **ALWAYS).spent
    assert spent.asked == 24
    assert spent.kept == 2 * 16 + 4 * 8, "of six frames two are whole"
    assert spent.slack == 64 - 24, "the audit compares the prefill"
    assert spent.decode_visible == pytest.approx((2 * 64 + 2 * 24) / 4)


@pytest.mark.parametrize("gate", ["code", "hold"])
def test_a_batch_keeps_its_memories_apart_and_no_answer_remembers_another(backbone, ask, gate):
    requests = [ask(backbone, frames, seed=frames, clip=str(frames)) for frames in (6, 4, 9)]
    method = DyCoke(retention=0.6, layer=1, gate=gate, pruning_rate=0.7)
    batch = backbone.answer(requests, method, max_new_tokens=6, keep_logits=True)
    for together, request in zip(batch, requests, strict=True):
        alone = backbone.answer([request], method, max_new_tokens=6, keep_logits=True)[0]
        assert together.ids == alone.ids
        assert together.spent.decode_visible == alone.spent.decode_visible
        torch.testing.assert_close(torch.stack(together.logits), torch.stack(alone.logits), rtol=1e-4, atol=1e-4)


def test_every_setting_changes_something(backbone, ask):
    request = ask(backbone, 8)
    settings = [
        {},
        {"layer": 1},
        {"pruning_rate": 0.5},
        {"gate": "hold"},
        {"threshold": 0.9},
        {"loop": "fixed"},
        {"order": "similarity"},
        {"rounding": "released"},
        {"retention": 0.3, "extend": True},
        {"retention": 0.3, "extend": True, "window": 4},
        {"retention": 0.3, "accounting": "decode"},
        {"retention": 0.3, "accounting": "decode", "merging_rate": 0.5},
    ]
    logits = [
        torch.stack(answer(backbone, request, **{"retention": 0.55, "threshold": 0.3, **fields}).logits)
        for fields in settings
    ]
    for i, one in enumerate(logits):
        assert all(not torch.equal(one, other) for other in logits[:i]), settings[i]


def test_without_dp_it_composes_with_an_in_llm_method(backbone, ask):
    merging = DyCoke(retention=math.sqrt(0.25), pruning_rate=0.0)
    assert merging.stages == ("pre-LLM",)
    cut = AttentionTopk(variant="B1", retention=0.25)
    both = Composed(first=merging, second=cut, retention=0.25, share=0.5)
    assert backbone.answer([ask(backbone)], both, max_new_tokens=2)[0].spent.layers == (48, 48, 24, 24)
    with pytest.raises(MethodError, match=r"DyCoke \('pre-LLM', 'decode'\).* must act before the LLM alone"):
        Composed(first=dataclasses.replace(merging, pruning_rate=0.8), second=cut, retention=0.25)

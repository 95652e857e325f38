"""VisionZip against worked examples: dominant tokens, targets by rank, cosine assignment, target plus mean."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import interpolate

from baselines.fidelity.visionzip import check
from baselines.visionzip import (
    VisionZip,
    contextual_targets,
    dominant_count,
    dominant_mask,
    nearest_target,
    zip_frames,
)
from cacovid.attention import received
from cacovid.errors import MethodError
from cacovid.records import VideoTokens
from naive.visionzip import CASES, naive_zip_frames

GOLDEN = Path(__file__).parents[1] / "golden" / "visionzip"

SCORES = torch.tensor([[0.05, 0.20, 0.10, 0.15, 0.05, 0.25, 0.12, 0.08]])
KEYS = torch.tensor([[[1, 0], [1, 1], [3, 0.3], [1, 1], [0, 1], [1, 1], [0.2, 2], [-1, 0.5]]])
FEATURES = torch.arange(1.0, 9)[None, :, None]  # token i is i + 1


def random_video(frames=4, slots=16, width=8, dtype=torch.float32, seed=0):
    """A video of random features, scores and keys of 2 heads of 6 channels."""
    g = torch.Generator().manual_seed(seed)
    features = torch.randn(frames, slots, width, generator=g).to(dtype)
    captured = {
        "received_attention": torch.rand(frames, slots, generator=g),
        "keys": torch.randn(frames, slots, 2, 6, generator=g),
    }
    row = features.new_zeros(1, width)
    return VideoTokens(features, (1, slots), row, row, row, slice(0, 1), "clip", captured)


def compress(video, retention, **settings):
    method = VisionZip(retention=retention, **settings)
    return method.compress(video, method.budget(len(video)))


def per_frame(out, video):
    return out.position.div(video.tokens_per_frame, rounding_mode="floor").bincount(minlength=video.frames).tolist()


# Worked examples


def zip_example(keys, share=3 / 5):
    return zip_frames(FEATURES, SCORES, keys, [5], share)


def test_t1_targets_are_every_second_leftover_and_rows_are_target_plus_mean():
    dominant = dominant_mask(SCORES, [3])
    assert dominant[0].nonzero()[:, 0].tolist() == [1, 3, 5], "raster order"
    targets = contextual_targets(dominant, [2])
    assert targets.tolist() == [[0, 4]], "step 2 through the leftovers 0, 2, 4, 6, 7"
    assert nearest_target(KEYS, targets)[0, [2, 6, 7]].tolist() == [0, 1, 1]
    out = zip_example(KEYS)
    assert out.tokens[:, 0].tolist() == [2, 4, 6, 4, 12.5], "1 + 3 and 5 + (7 + 8) / 2"
    assert out.position.tolist() == [1, 3, 5, 0, 4]
    assert out.owner.tolist() == [3, 0, 3, 1, 4, 2, 4, 4]


def test_t1_in_raster_order_contextual_tokens_stand_at_their_targets():
    out = zip_frames(FEATURES, SCORES, KEYS, [5], 3 / 5, "raster")
    assert out.position.tolist() == [0, 1, 3, 4, 5]
    assert out.tokens[:, 0].tolist() == [4, 2, 4, 12.5, 6]
    assert out.owner.tolist() == [0, 1, 0, 2, 3, 4, 3, 3]


def test_t2_assignment_is_by_cosine_not_by_dot_product():
    keys = KEYS.clone()
    keys[0, 4] = 4
    assert zip_example(keys).tokens[:, 0].tolist() == [2, 4, 6, 4, 12.5]
    dot = keys[0] @ keys[0, [0, 4]].T
    assert dot.argmax(1)[[2, 6, 7]].tolist() == [1, 1, 0], "what a dot product would do"


def test_t3_a_target_without_members_is_passed_as_it_is():
    keys = torch.tensor([[1.0, 0]]).repeat(1, 8, 1)
    keys[0, 4] = torch.tensor([0.0, 1])
    assert zip_example(keys).tokens[:, 0].tolist() == [2, 4, 6, 7, 5]


@pytest.mark.parametrize(
    ("left", "count", "targets"),
    [(180, 4, [0, 45, 90, 135]), (11, 4, [0, 2, 4, 6]), (154, 8, list(range(0, 134, 19))), (7, 5, [0, 1, 2, 3, 4])],
)
def test_t4_targets_are_even_by_rank_among_the_leftovers(left, count, targets):
    plain = torch.zeros(1, left, dtype=torch.bool)
    assert contextual_targets(plain, [count]).tolist() == [targets]
    dominant = torch.zeros(1, left + 3, dtype=torch.bool)
    dominant[0, [0, 2, left + 2]] = True
    leftovers = (~dominant[0]).nonzero()[:, 0]
    assert contextual_targets(dominant, [count])[0].tolist() == leftovers[targets].tolist()


def test_targets_of_frames_with_fewer_are_padded():
    dominant = torch.zeros(3, 6, dtype=torch.bool)
    dominant[1, :5] = True
    targets = contextual_targets(dominant, [2, 1, 0])
    assert targets.tolist() == [[0, 3], [5, -1], [-1, -1]]
    keys = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0))
    assert (nearest_target(keys, targets)[1] == 0).all(), "no token joins the padding, not even the one in slot 0"


def test_t5_received_attention_ranks_and_given_attention_does_not():
    g = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 2, 729, 8, generator=g)
    scores = received(query, key, 8**-0.5)
    assert scores.sum().item() == pytest.approx(1, abs=1e-5)
    assert scores.std() > 1e-4
    given = (query @ key.transpose(-1, -2) * 8**-0.5).softmax(-1).mean((1, 3))
    assert given.std() < 1e-8, "the mean over keys is 1/729 for all patches"
    pooled = interpolate(scores.view(1, 1, 27, 27), size=(14, 14), mode="bilinear")
    assert pooled.sum().item() == pytest.approx(196 / 729, rel=0.02)
    ramp = interpolate(torch.arange(9.0).view(1, 1, 3, 3), size=(2, 2), mode="bilinear")
    assert ramp.flatten().tolist() == [1, 2.5, 5.5, 7]


def test_t6_nothing_contextual_is_plain_top_k():
    video = random_video()
    whole = zip_frames(video.features, video.received_attention, video.keys.mean(2), [16] * 4, share=1)
    assert torch.equal(whole.tokens, video.flat)
    out = compress(video, 0.25, dominant_share=1)
    best = video.received_attention.topk(4).indices.sort().values + 16 * torch.arange(4)[:, None]
    assert torch.equal(out.position, best.flatten())
    assert torch.equal(out.tokens, video.flat[out.position])
    assert (out.owner >= 0).sum() == 16, "what is not dominant is dropped"


# Budgets


def test_the_ports_splits_of_196_tokens():
    split = {s: (dominant_count(s), s - dominant_count(s)) for s in (19, 20, 29, 30, 39, 40, 49, 50)}
    assert split == {
        20: (16, 4), 30: (25, 5), 40: (33, 7), 50: (42, 8),  # HoliTom, at "10, 15, 20 and 25%"
        19: (16, 3), 29: (24, 5), 39: (32, 7), 49: (41, 8),
    }  # fmt: skip
    sixths = {147: 126, 98: 84, 49: 42, 35: 30, 14: 12}  # DyToK, 6 : 1
    assert {s: dominant_count(s, 6 / 7) for s in sixths} == sixths
    assert [dominant_count(s) for s in (64, 128, 192)] == [54, 108, 162], "VisionZip itself"
    assert 100 * 0.29 < 29 == dominant_count(100, 0.29), "in floating point a whole number may fall short"


@pytest.mark.parametrize("tokens", [14, 20, 30, 40, 50])
def test_a_ports_number_of_tokens_is_met_at_its_true_ratio(tokens):
    video = random_video(32, 196, 2)
    out = compress(video, tokens / 196)
    assert per_frame(out, video) == [tokens] * 32


@pytest.mark.parametrize("retention", [0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 0.999])
@pytest.mark.parametrize("rounding", ["exact", "round", "floor", "ceil"])
def test_roundings_and_the_slack_they_cost(retention, rounding):
    video = random_video(32, 196, 2)
    method = VisionZip(retention=retention, rounding=rounding)
    budget = method.budget(len(video))
    counts = per_frame(method.compress(video, budget), video)
    assert abs(sum(counts) - budget) == method.slack(video)
    assert method.schedule(video, 3) == [sum(counts)] * 3
    if rounding == "exact":
        assert sum(counts) == budget
        assert max(counts) - min(counts) <= 1
    else:
        assert len(set(counts)) == 1
        assert method.slack(video) <= (16 if rounding == "round" else 32)


def test_ceil_of_a_whole_number_is_that_number():
    assert 0.07 * 100 > 7, "in floating point"
    assert VisionZip(retention=0.07, rounding="ceil").quota(random_video(2, 100, 1), 14) == [7, 7]


@pytest.mark.parametrize("budget", [1, 2, 3, 5])
def test_below_one_token_a_frame_some_frames_keep_none(budget):
    video = random_video(6)
    out = compress(video, budget / len(video))
    counts = per_frame(out, video)
    assert sum(counts) == budget == len(out)
    assert set(counts) == {0, 1}
    for frame, kept in enumerate(counts):
        owners = out.owner[16 * frame : 16 * frame + 16]
        if kept:  # 27 : 5 of one token is one contextual token: token 0 plus the mean of the others
            row = owners[0]
            assert (owners == row).all()
            expected = video.features[frame, 0] + video.features[frame, 1:].mean(0)
            torch.testing.assert_close(out.tokens[row], expected)
        else:
            assert (owners == -1).all()


def test_whole_frame_roundings_keep_at_least_one_token_a_frame():
    video = random_video(6)
    method = VisionZip(retention=1 / 96, rounding="floor")
    assert len(method.compress(video, 1)) == 6
    assert method.slack(video) == 5


# Edge cases


@pytest.mark.parametrize("order", ["dominant_first", "raster"])
@pytest.mark.parametrize("share", [0, 0.2, 0.5, 27 / 32, 1])
@pytest.mark.parametrize(
    "quota", [[16] * 3, [1] * 3, [0, 0, 1], [5, 6, 5], [16, 15, 16], [2, 0, 9]], ids=lambda q: "-".join(map(str, q))
)
def test_fast_equals_naive(quota, share, order):
    video = random_video(3)
    inputs = video.features, video.received_attention, video.keys.mean(2), quota, share, order
    fast, naive = zip_frames(*inputs), naive_zip_frames(*inputs)
    assert torch.equal(fast.position, naive[1])
    assert torch.equal(fast.owner, naive[2])
    torch.testing.assert_close(fast.tokens, naive[0], rtol=0, atol=1e-5)
    assert torch.equal(fast.owner[fast.position], torch.arange(sum(quota)))


@pytest.mark.parametrize("label", CASES)
@pytest.mark.parametrize("sizes", [(1, 49, 8), (3, 100, 24)])
def test_benchmark_cases_agree(label, sizes):
    make, fast, naive = CASES[label]
    ours, theirs = fast(*make(*sizes)), naive(*make(*sizes))
    assert torch.equal(ours[1], theirs[1]) and torch.equal(ours[2], theirs[2])
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=1e-5)


def test_frames_do_not_see_each_other():
    video = random_video(5)
    inputs = video.features, video.received_attention, video.keys.mean(2)
    together = zip_frames(*inputs, [4] * 5).tokens.view(5, 4, -1)
    for f in range(5):
        alone = zip_frames(*(x[f : f + 1] for x in inputs), [4]).tokens
        torch.testing.assert_close(together[f], alone, rtol=0, atol=1e-6)


def test_identical_frames_give_identical_rows():
    one = random_video(1)
    inputs = one.features, one.received_attention, one.keys.mean(2)
    rows = zip_frames(*(x.expand(4, *x.shape[1:]) for x in inputs), [6] * 4).tokens.view(4, 6, -1)
    assert torch.equal(rows, rows[:1].expand_as(rows))


def test_equal_scores_and_equal_keys_go_to_the_earlier_token():
    video = random_video(2)
    video = replace(video, captured={"received_attention": torch.ones(2, 16), "keys": torch.ones(2, 16, 2, 6)})
    out = compress(video, 8 / 16)
    assert out.position[:8].tolist() == [0, 1, 2, 3, 4, 5, 6, 11], "dominant 0-5, targets by 5 of 6-15"
    assert out.owner[:16].tolist() == [0, 1, 2, 3, 4, 5, 6, 6, 6, 6, 6, 7, 6, 6, 6, 6], "the first target wins"


def test_equal_cosines_of_unequal_keys_are_ties():
    lengths = torch.logspace(-3, 3, 196)[:, None]
    keys = lengths * torch.randn(72, generator=torch.Generator().manual_seed(0))
    unit = keys / keys.norm(dim=-1, keepdim=True)
    targets = list(range(0, 196, 25))
    assert (unit @ unit[targets].T).argmax(1).any(), "a plain argmax follows the rounding of the lengths"
    assert not nearest_target(keys[None], torch.tensor([targets])).any(), "the first target wins"


def test_zero_keys_and_zero_features_are_no_nan():
    video = random_video(2)
    keys = video.keys.clone()
    keys[0, :8] = 0
    keys[1] = 0
    video = replace(
        video,
        features=torch.zeros_like(video.features),
        captured={"received_attention": torch.zeros(2, 16), "keys": keys},
    )
    out = compress(video, 0.5)
    assert torch.equal(out.tokens, torch.zeros_like(out.tokens))
    assert len(out) == 16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_summed_in_float32(dtype):
    features = torch.full((1, 196, 4), 1000.0, dtype=dtype)  # 195 of them are beyond the range of float16
    video = replace(random_video(1, 196, 4), features=features, captured={**random_video(1, 196, 4).captured})
    out = compress(video, 4 / 196)
    assert out.tokens.dtype == dtype
    assert out.tokens[:3].unique().item() == 1000
    assert out.tokens[3].unique().item() == 2000, "target plus mean: twice a token"


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_few_frames_and_r_1_is_the_identity(frames):
    video = random_video(frames)
    assert len(compress(video, 0.3)) == round(0.3 * 16 * frames)
    whole = compress(video, 1)
    assert torch.equal(whole.tokens, video.flat)
    assert torch.equal(whole.position, torch.arange(len(video)))


def test_dominant_tokens_are_bit_equal_and_contextual_ones_are_what_they_own():
    video = random_video(3)
    out = compress(video, 0.5)
    for row, position in enumerate(out.position.tolist()):
        members = (out.owner == row).nonzero()[:, 0]
        others = members[members != position]
        if len(others):
            torch.testing.assert_close(out.tokens[row], video.flat[position] + video.flat[others].mean(0))
        else:
            assert torch.equal(out.tokens[row], video.flat[position])
    assert (out.owner >= 0).all(), "nothing is dropped where every frame has a contextual token"


# Refusals


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dominant_share": 1.2}, r"dominant_share=1.2, expected 0 <= dominant_share <= 1: the share of the kept"),
        ({"dominant_share": float("nan")}, r"dominant_share=nan, expected 0 <="),
        ({"rounding": "up"}, r"rounding='up', expected one of 'exact', 'round', 'floor', 'ceil'"),
        ({"order": "score"}, r"order='score', expected one of 'dominant_first', 'raster'"),
        ({"positions": "original"}, r"positions='original' with order='dominant_first' .* use order='raster'"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(MethodError, match=words):
        VisionZip(**settings)


@pytest.mark.parametrize("name", ["received_attention", "keys"])
def test_unpooled_captures_are_refused(name):
    video = random_video(2)
    unpooled = random_video(2, 49).captured[name]
    with pytest.raises(MethodError, match=r"expected \(F, S\) and \(F, S, heads, head_dim\) with F, S = \(2, 16\)"):
        compress(replace(video, captured={**video.captured, name: unpooled}), 0.5)


def test_keys_without_their_heads_apart_are_refused():
    video = random_video(2)
    flat = {**video.captured, "keys": video.keys.flatten(2)}
    with pytest.raises(MethodError, match=r"keys \(2, 16, 12\), expected"):
        compress(replace(video, captured=flat), 0.5)


# Through the backbone


@pytest.mark.parametrize("frames", [1, 2, 5, 6])
def test_through_the_backbone_the_budget_is_spent_exactly(backbone, ask, frames):
    method = VisionZip(retention=0.3)
    answer = backbone.answer([ask(backbone, frames)], method, max_new_tokens=3)[0]
    assert answer.spent.kept == answer.spent.asked == round(0.3 * 16 * frames)
    assert set(answer.spent.layers) == {answer.spent.kept}, "before the LLM: the same in every layer"
    assert answer.spent.slack == 0
    frame = answer.kept // 16
    assert (frame.diff() >= 0).all(), "frames stay in time order"


def test_the_backbones_keys_are_averaged_over_heads(backbone, ask):
    method = VisionZip(retention=0.5)
    video = backbone.encode([ask(backbone)], method.needs)[0]
    assert video.keys.shape == (6, 16, 4, 8)
    out = method.compress(video, 48)
    rows, position, owner = naive_zip_frames(video.features, video.received_attention, video.keys.mean(2), [8] * 6)
    assert torch.equal(out.position, position)
    assert torch.equal(out.owner, owner)
    torch.testing.assert_close(out.tokens, rows, rtol=1e-5, atol=1e-5)
    assert method.compressor_flops(video, 48) == 2 * 96 * 2 * 8, "each token with its frame's 2 targets, 8 channels"
    assert method.compressor_flops(video, 96) == 0


def test_every_setting_changes_what_the_llm_reads(backbone, ask):
    def read(**settings):
        method = VisionZip(retention=0.3, **settings)
        answer = backbone.answer([ask(backbone)], method, max_new_tokens=1, keep_logits=True)[0]
        return (tuple(answer.kept.tolist()), *answer.logits[0].tolist())

    settings = [
        {},
        {"dominant_share": 0.5},
        {"dominant_share": 1.0},
        {"rounding": "floor"},
        {"rounding": "round"},
        {"order": "raster"},
        {"order": "raster", "positions": "original"},
    ]
    assert len({read(**s) for s in settings}) == len(settings)


def test_the_question_plays_no_part(backbone, ask):
    method = VisionZip(retention=0.25)
    first, second = (backbone.encode([ask(backbone, text=t)], method.needs)[0] for t in ("What?", "Which colour?"))
    assert torch.equal(method.compress(first, 24).tokens, method.compress(second, 24).tokens)


def test_a_batch_gives_what_single_requests_give(backbone, ask):
    method = VisionZip(retention=0.3)
    requests = [ask(backbone, 4, seed=1), ask(backbone, 6, seed=2)]
    batch = backbone.answer(requests, method, max_new_tokens=4)
    assert [a.ids for a in batch] == [backbone.answer([r], method, max_new_tokens=4)[0].ids for r in requests]


def test_in_half_precision_the_tokens_keep_the_models_dtype(build_backbone, ask):
    half = build_backbone()
    half.model.to(torch.bfloat16)
    method = VisionZip(retention=0.3)
    answer = half.answer([ask(half)], method, max_new_tokens=2)[0]
    assert answer.compressed.tokens.dtype == torch.bfloat16
    assert answer.spent.kept == 29


# Golden vectors


def test_every_stored_output_is_checked_and_holds():
    stored = {
        f"{path.stem} {name.replace('.', ' ')}"
        for path in GOLDEN.glob("case_*.json")
        for name, tensor in json.loads(path.read_text(encoding="utf-8"))["tensors"].items()
        if tensor["role"] == "output"
    }
    checks = check(GOLDEN)
    assert {c.name.replace(".", " ") for c in checks} == stored
    assert not [c for c in checks if not c.passed]

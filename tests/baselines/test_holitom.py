"""HoliTom against the card's worked examples, the naive program, odd videos, and through the backbone."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines._holitom_plan import choose_windows, make_plan, static_runs, static_slots, transition_similarity
from baselines.holitom import HoliTom, fold, merge_static, merge_video
from cacovid.backbones import VideoRequest
from cacovid.errors import MethodError
from cacovid.records import VideoTokens
from naive import holitom as naive

UNLIMITED = {"tau": 0.8, "max_window": 1024}


def similarity_of(*rows: str) -> torch.Tensor:
    """One string a transition, 1 = static."""
    return torch.tensor([[0.9 if c == "1" else 0.1 for c in row] for row in rows])


def windows_of(similarity: torch.Tensor, tau: float = 0.8, max_window: int = 1024) -> tuple[list, int]:
    windows, reduced = choose_windows(static_runs(similarity, tau), max_window)
    return [tuple(w) for w in windows.tolist()], reduced


def video_of(features: torch.Tensor, scores: torch.Tensor | None = None) -> VideoTokens:
    frames, slots, width = features.shape
    if scores is None:
        scores = torch.rand(frames, slots, generator=torch.Generator().manual_seed(1))
    row = features.new_zeros(1, width)
    captured = {"received_attention": scores}
    return VideoTokens(features, (1, slots), row, row, row, slice(0, 1), "clip", captured)


def compress(video: VideoTokens, retention: float, **fields):
    method = HoliTom(retention=retention, **fields)
    return method.compress(video, method.budget(len(video)))


def example() -> tuple[torch.Tensor, torch.Tensor]:
    """T4 of the card: F=6, N=12, d=8."""
    f, i, k = (torch.arange(n, dtype=torch.float64) for n in (6, 12, 8))
    f, i, k = f[:, None, None], i[None, :, None], k[None, None, :]
    x = torch.sin(0.9 * (i + 1) * (k + 1) + 0.3 * i**2) + (0.02 + 0.09 * i) * torch.sin(1.7 * f * (k + 1) + 0.4 * i)
    x = x + 0.5 + 1.5 * (f >= 4) * torch.cos(1.1 * (k + i))
    scores = (torch.sin(2.1 * i + 0.8 * f) + 1.1)[..., 0] / 100
    return x.float(), scores.float()


# --- the card's examples ----------------------------------------------------------------------------------------

T1 = similarity_of("1110", "1100", "0001", "1011")


@pytest.mark.parametrize(
    ("max_window", "windows", "reduced"),
    [(1024, [(0, 2), (3, 4)], 7), (2, [(0, 1), (2, 2), (3, 4)], 6), (1, [(f, f) for f in range(5)], 0)],
)
def test_t1_the_dynamic_program(max_window, windows, reduced):
    assert windows_of(T1, max_window=max_window) == (windows, reduced)


def test_t2_ties_go_to_the_shorter_last_window_and_the_threshold_is_strict():
    assert windows_of(similarity_of("10", "01")) == ([(0, 1), (2, 2)], 1)
    assert windows_of(torch.full((1, 5), 0.8)) == ([(0, 0), (1, 1)], 0)
    assert windows_of(torch.full((1, 5), 0.8).nextafter(torch.tensor(1.0))) == ([(0, 1)], 5)


def test_t3_the_release_overshoots_a_small_video():
    plan = make_plan(T1, 0.25, None, **UNLIMITED)
    assert (plan.merged, plan.single, len(plan)) == ([1, 1], [1] * 5, 7), "35%, not 25%"
    exact = make_plan(T1, 0.25, 5, **UNLIMITED)
    assert len(exact) == 5
    assert torch.equal(exact.static, plan.static)


@pytest.mark.parametrize(
    ("retention", "merged", "rows", "total"), [(0.25, [3, 6], 21, 48.418), (0.4, [5, 9], 30, 90.071)]
)
def test_t4_the_outer_stage(retention, merged, rows, total):
    x, scores = example()
    torch.testing.assert_close(x[0, 0, :3], torch.tensor([1.2833, 1.4738, 0.9274]), rtol=0, atol=1e-4)
    assert x.sum().item() == pytest.approx(260.187, abs=1e-3)
    plan = make_plan(transition_similarity(x), retention, None, **UNLIMITED)
    assert plan.windows.tolist() == [[0, 3], [4, 5]]
    assert (plan.reduced, plan.static.sum(1).tolist(), plan.merged) == (33, [7, 12], merged)
    out = compress(video_of(x, scores), retention, counts="released")
    assert len(out) == rows
    assert out.tokens.sum().item() == pytest.approx(total, abs=2e-3)
    if retention == 0.25:
        torch.testing.assert_close(out.tokens[0, :3], torch.tensor([1.3298, 0.4702, 0.3178]), rtol=0, atol=1e-4)


def test_t5_the_inner_stage_halves_in_turn():
    hidden = torch.tensor([[1.0, 0], [3, 0], [0, 1], [1, 0], [0, 5]])
    cut = fold(hidden, torch.tensor([0.5, 0.1, 0.4, 0.05, 0.02]), 2)
    assert cut.keep.tolist() == [0, 2]
    assert cut.hidden.tolist() == [[1.5, 0], [0, 3]], "a plain mean would be 1.667"
    assert HoliTom()._left(5) == 2, "half to even"


# --- fast equals naive ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", sorted(naive.CASES))
@pytest.mark.parametrize("frames", [2, 9, 15])
def test_fast_equals_naive(label, frames):
    make, fast, slow = naive.CASES[label]
    inputs = make(frames, 16, 24)
    for ours, expected in zip(fast(*inputs), slow(*inputs), strict=True):
        if ours.is_floating_point():
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
        else:
            assert torch.equal(ours, expected)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), frames=st.integers(2, 12), slots=st.integers(1, 6), max_window=st.integers(1, 13))
def test_windows_are_the_naive_ones_and_partition_the_video(seed, frames, slots, max_window):
    similarity = torch.randint(0, 4, (frames - 1, slots), generator=torch.Generator().manual_seed(seed)) / 3
    windows, reduced = windows_of(similarity, 0.5, max_window)
    expected, saved = naive.choose_windows(similarity, 0.5, max_window)
    assert (windows, reduced) == ([tuple(w) for w in expected.tolist()], saved)
    assert [f for a, b in windows for f in range(a, b + 1)] == list(range(frames))
    assert max(b - a + 1 for a, b in windows) <= max_window
    assert windows_of(similarity, 0.7, max_window)[1] <= reduced, "a higher threshold never saves more"
    static = static_slots(static_runs(similarity, 0.5), torch.tensor(windows))
    lengths = torch.tensor([b - a for a, b in windows])
    assert int((static.sum(1) * lengths).sum()) == reduced
    assert bool(static.any(1)[lengths > 0].all()), "a longer window has something to merge"


def test_many_folds_into_one_row_do_not_overflow():
    hidden = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    scores = torch.rand(400, generator=torch.Generator().manual_seed(1))
    ours, expected = fold(hidden, scores, 1), naive.fold(hidden, scores, 1)
    torch.testing.assert_close(ours.hidden, expected.hidden, rtol=0, atol=1e-6)
    assert torch.equal(ours.keep, expected.keep)


def test_a_kept_row_that_nothing_came_to_is_bit_equal():
    hidden = torch.eye(4, dtype=torch.bfloat16) / 3
    hidden[3] = hidden[0]
    cut = fold(hidden, torch.tensor([0.4, 0.3, 0.2, 0.1]), 3)
    assert cut.hidden.dtype == torch.bfloat16
    assert torch.equal(cut.hidden, hidden[:3])


def test_equal_cosines_go_to_the_higher_score():
    hidden = torch.tensor([[1.0, 0], [2, 0], [4, 0]])
    cut = fold(hidden, torch.tensor([0.2, 0.3, 0.1]), 2)
    assert cut.hidden.tolist() == [[1, 0], [3, 0]]


# --- the budget -------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), frames=st.integers(1, 9), slots=st.integers(1, 9), share=st.floats(0.01, 0.99))
def test_the_budget_is_met_and_every_row_has_an_input(seed, frames, slots, share):
    generator = torch.Generator().manual_seed(seed)
    motion = torch.rand(slots, generator=generator)[:, None] * 1.5
    still = torch.randn(slots, 5, generator=generator)
    features = still + motion * torch.randn(frames, slots, 5, generator=generator)
    video = video_of(features)
    budget = max(1, int(share * len(video)))
    dropped = set()
    for order in ("static_first", "raster"):
        out = compress(video, budget / len(video), tau=0.7, order=order)
        dropped.add(tuple((out.owner < 0).tolist()))
        assert len(out) == budget
        assert torch.equal(out.owner[out.position], torch.arange(budget)), "a row stands where its centre was"
        assert set(out.owner.tolist()) - {-1} == set(range(budget))
        alone = torch.bincount(out.owner[out.owner >= 0]) == 1
        assert torch.equal(out.tokens[alone], video.flat[out.position][alone])
    assert len(dropped) == 1, "the order of the rows drops nothing"


@pytest.mark.parametrize("budget", [1, 5, 6, 7, 12, 29, 30])
def test_a_still_video_meets_its_budget_too(budget):
    features = torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(0)).expand(5, 6, 8)
    video = video_of(features)
    out = compress(video, budget / 30)
    assert len(out) == budget
    if budget <= 6:
        assert set(out.position.tolist()) <= set(range(6)), "one window: all rows are merged ones"
    released = compress(video, budget / 30, counts="released")
    assert len(released) == (30 if budget == 30 else min(budget, 6)), "the release keeps a slot once at most"


def test_the_least_static_slots_are_the_first_not_to_be_merged():
    similarity = torch.tensor([[0.99, 0.95, 0.98, 0.1], [0.99, 0.95, 0.85, 0.1]])  # slot 2 by its weakest transition
    plan = make_plan(similarity, 9 / 12, 7, **UNLIMITED)
    assert plan.static.tolist() == [[True, True, False, False]], "12 - 6 = 6 tokens were too few by one"
    assert len(plan) == 7
    plan = make_plan(similarity, 6 / 12, 6, **UNLIMITED)
    assert plan.static.tolist() == [[True, True, True, False]]


def test_shares_follow_the_sizes_and_leave_rounding_to_time():
    plan = make_plan(torch.zeros(7, 4), 0.3, 10, **UNLIMITED)
    assert sum(plan.single) == 10
    assert sorted(plan.single) == [1] * 6 + [2] * 2
    assert plan.single[:4] != [2, 2, 1, 1], "not all of it to the first frames"
    assert make_plan(torch.zeros(4, 4), 0.05, 1, **UNLIMITED).single == [0, 0, 1, 0, 0], "one token: the middle frame"


def test_counts_of_the_release_may_miss_the_budget_and_say_so():
    x, scores = example()
    method = HoliTom(retention=0.25, counts="released")
    assert method.adaptive
    assert not HoliTom().adaptive
    assert len(method.compress(video_of(x, scores), 18)) == 21
    assert method.schedule(video_of(x, scores), 4) == [21] * 4
    assert HoliTom(retention=0.25).schedule(video_of(x, scores), 4) == [18] * 4


def test_where_the_release_would_keep_nothing_one_row_stays():
    scenes = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
    video = video_of(scenes.repeat_interleave(2, 0))  # two still windows of 4 slots: round(4 * 1/8) = 0 of each
    plan = make_plan(transition_similarity(video.features), 1 / 16, None, **UNLIMITED)
    assert plan.windows.tolist() == [[0, 1], [2, 3]]
    assert len(compress(video, 1 / 16, counts="released")) == 1


# --- merging and order ------------------------------------------------------------------------------------------


def two_windows() -> VideoTokens:
    """Three still frames and one of another scene; in slots 1 and 4 something moves."""
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(1, 6, 32, generator=generator).repeat(4, 1, 1)
    features[:3] += 0.05 * torch.randn(3, 6, 32, generator=generator)
    features[:3, [1, 4]] = torch.randn(3, 2, 32, generator=generator)
    features[3] = torch.randn(6, 32, generator=generator)
    return video_of(features)


def test_static_rows_come_first_in_their_window_or_everything_in_raster_order():
    video = two_windows()
    out = compress(video, 16 / 24)
    assert out.position.tolist() == [0, 2, 3, 5, 1, 4, 7, 10, 13, 16, 18, 19, 20, 21, 22, 23]
    torch.testing.assert_close(out.tokens[1], video.features[:3, 2].mean(0))
    assert out.owner.view(4, 6)[:3, 2].tolist() == [1, 1, 1]
    raster = compress(video, 16 / 24, order="raster")
    assert raster.position.tolist() == sorted(out.position.tolist())
    place = out.position.argsort()
    assert torch.equal(raster.tokens, out.tokens[place])
    assert torch.equal(raster.owner[raster.position], torch.arange(16))


def test_beta_weighs_the_centre_against_its_members():
    x = torch.tensor([[0.0], [0.2], [0.3], [1.2]])
    merged = merge_static(x, 2, 7, 0.6)
    assert merged.centres.tolist() == [1, 3]
    assert merged.labels.tolist() == [0, 0, 0, 1]
    members = (0.0 + 0.3) / 2  # without the centre
    assert merged.rows[:, 0].tolist() == pytest.approx([0.6 * 0.2 + 0.4 * members, 1.2])
    assert merge_static(x, 2, 7, 0.25).rows[0, 0].item() == pytest.approx(0.25 * 0.2 + 0.75 * members)


def test_the_most_attended_dynamic_tokens_stay_and_ties_go_to_the_earlier_one():
    features = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    scores = torch.tensor([[0.1, 0.5, 0.5, 0.5, 0.2], [0.3, 0.1, 0.1, 0.1, 0.4]])
    out = compress(video_of(features, scores), 0.4)
    assert out.position.tolist() == [1, 2, 5, 9]


# --- odd videos -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", ["exact", "released"])
@pytest.mark.parametrize("frames", [1, 2, 3, 7])
@pytest.mark.parametrize("kind", ["noise", "identical", "zero", "half"])
def test_odd_videos_have_a_defined_result(kind, frames, counts):
    features = torch.randn(frames, 9, 16, generator=torch.Generator().manual_seed(0))
    if kind == "identical":
        features = features[:1].expand(frames, 9, 16)
    if kind == "zero":
        features = torch.zeros_like(features)
    if kind == "half":
        features = features.bfloat16()
    video = video_of(features)
    for budget in (1, 4, len(video) - 1):
        out = compress(video, budget / len(video), counts=counts)
        assert out.tokens.isfinite().all()
        assert out.tokens.dtype == features.dtype
        assert len(out) == budget or counts == "released"
        assert (out.owner >= 0).any()


def test_tau_1_switches_the_merge_over_time_off():
    features = torch.randn(1, 50, 64, generator=torch.Generator().manual_seed(0)).expand(3, 50, 64)
    video = video_of(features)
    out = compress(video, 0.5, tau=1.0)
    assert torch.equal(out.tokens, video.flat[out.position]), "identical frames are not more than identical"
    assert not torch.equal(out.tokens, compress(video, 0.5, tau=0.99).tokens)


def test_half_precision_decides_like_single_precision():
    features, scores = naive.make_video(8, 16, 64)
    single, half = (compress(video_of(x, scores), 0.3) for x in (features, features.half()))
    assert torch.equal(single.position, half.position)
    torch.testing.assert_close(single.tokens, half.tokens.float(), rtol=0, atol=5e-3)


def test_scaling_the_features_changes_no_window():
    features, _ = naive.make_video(12, 16, 32)
    plans = [make_plan(transition_similarity(x), 0.2, 40, **UNLIMITED) for x in (features, 37 * features)]
    assert torch.equal(plans[0].windows, plans[1].windows)
    assert plans[0].reduced == plans[1].reduced > 0


@pytest.mark.parametrize("counts", ["exact", "released"])
def test_r_1_is_the_identity(counts):
    video = two_windows()
    out = compress(video, 1.0, counts=counts)
    assert torch.equal(out.tokens, video.flat)
    assert torch.equal(out.owner, torch.arange(len(video)))
    method = HoliTom(inner=True, inner_layer=2)
    assert method.schedule(video, 4) == [24] * 4
    assert method.compressor_flops(video, 24) == 0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tau": 1.5}, r"tau=1.5, expected -1 <= tau <= 1"),
        ({"beta": -0.1}, r"beta=-0.1, expected 0 <= beta <= 1"),
        ({"neighbours": 0}, r"neighbours=0, expected >= 1"),
        ({"max_window": 0}, r"max_window=0, expected >= 1"),
        ({"inner_layer": 0}, r"inner_layer=0, expected >= 1"),
        ({"inner_drop": 1.0}, r"inner_drop=1.0, expected 0 <= inner_drop < 1: the share that is folded away"),
        ({"inner": "yes"}, r"inner='yes' is a str, expected bool"),
        ({"counts": "ceil"}, r"counts='ceil', expected one of 'exact', 'released'"),
        ({"order": "time"}, r"order='time', expected one of 'static_first', 'raster'"),
    ],
)
def test_bad_fields_are_refused(fields, words):
    with pytest.raises(MethodError, match=words):
        HoliTom(**fields)


def test_without_the_towers_attention_it_refuses():
    bare = dataclasses.replace(two_windows(), captured={})
    for retention in (0.5, 1.0):
        with pytest.raises(MethodError, match=r"received_attention was not captured"):
            compress(bare, retention)


# --- through the backbone ---------------------------------------------------------------------------------------


def half_still(backbone, ask, frames: int = 6) -> VideoRequest:
    """A request whose left half does not move."""
    request = ask(backbone, frames)
    pixels = request.frames.copy()
    pixels[:, :, : pixels.shape[2] // 2] = pixels[:1, :, : pixels.shape[2] // 2]
    return dataclasses.replace(request, frames=np.ascontiguousarray(pixels))


def test_a_still_half_is_merged_and_the_budget_met(backbone, ask):
    method = HoliTom(retention=0.25, tau=0.98)
    answer = backbone.answer([half_still(backbone, ask)], method, max_new_tokens=2)[0]
    assert answer.spent.layers == (24,) * 4
    owner = answer.compressed.owner
    assert torch.bincount(owner[owner >= 0]).max() >= 6, "a merged row stands for several slots and frames"
    assert answer.spent.flops.compressor > 0


def test_the_inner_stage_cuts_on_top_of_the_budget(backbone, ask):
    for layer in (1, 3):
        method = HoliTom(retention=0.25, inner=True, inner_layer=layer)
        spent = backbone.answer([ask(backbone)], method, max_new_tokens=3)[0].spent
        assert spent.layers == (24,) * layer + (12,) * (4 - layer)
        assert (spent.asked, spent.entering, spent.missed) == (24, 24, False)
        video = backbone.encode([ask(backbone)], method.needs)[0]
        assert list(spent.layers) == method.schedule(video, 4)


def test_the_inner_stage_reads_the_last_row_in_the_layer_before(backbone, ask, monkeypatch):
    seen = {}

    def spy(hidden, scores, keep):
        seen.update(hidden=hidden, scores=scores, keep=keep)
        seen["cut"] = fold(hidden, scores, keep)
        return seen["cut"]

    monkeypatch.setattr("baselines.holitom.fold", spy)
    method = HoliTom(retention=0.25, inner=True, inner_layer=2, inner_drop=0.25)
    answer = backbone.answer([ask(backbone)], method, max_new_tokens=1)[0]
    assert seen["hidden"].shape[0] == 24
    assert seen["keep"] == 18
    assert torch.equal(answer.kept, answer.compressed.position[seen["cut"].keep])
    expected = naive.fold(seen["hidden"], seen["scores"], 18)
    torch.testing.assert_close(seen["cut"].hidden, expected.hidden, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_the_inner_cut_is_made_before_layer_k_from_the_last_rows_head_mean(layer):
    weights = torch.tensor([[[0.9, 0.0, 0.0, 0.0]] * 2, [[0.08, 0.14, 0.24, 0.02], [0.04, 0.16, 0.02, 0.22]]])
    state = SimpleNamespace(
        attention=lambda rows: weights[rows],
        last_row=torch.tensor([1]),
        layers=[None] * 4,
        flat=torch.arange(4),
        video=range(16),
        hidden=torch.eye(4),
    )
    method = HoliTom(retention=0.25, inner=True, inner_layer=2)
    cut = method.prune_layer(layer, state, 4)
    assert (cut is not None) == (layer == 2)
    if cut is not None:
        assert cut.keep.tolist() == [1, 2], "head mean [.06, .15, .13, .12]; head max would keep [2, 3]"
    assert HoliTom(retention=0.25, inner_layer=2).prune_layer(layer, state, 4) is None
    assert method.prune_layer(layer, state, 16) is None, "r = 1"


def test_a_layer_that_the_model_has_not_is_refused(backbone, ask):
    with pytest.raises(MethodError, match=r"inner_layer=18, expected 1 <= inner_layer < 4: this model has 4"):
        backbone.answer([ask(backbone)], HoliTom(retention=0.5, inner=True), max_new_tokens=1)


def test_r_1_with_the_inner_stage_is_the_uncompressed_model(backbone, ask, stock):
    request = ask(backbone)
    expected = stock(backbone, request, max_new_tokens=4)
    ours = backbone.answer([request], HoliTom(inner=True, inner_layer=2), max_new_tokens=4, keep_logits=True)[0]
    assert ours.ids == expected.ids
    for row, reference in zip(ours.logits, expected.logits, strict=True):
        assert torch.equal(row, reference)


def test_every_setting_changes_the_result(backbone, ask):
    request = half_still(backbone, ask)

    def result(**fields):
        fields = {"retention": 0.3, "tau": 0.85} | fields
        answer = backbone.answer([request], HoliTom(**fields), max_new_tokens=1, keep_logits=True)[0]
        return tuple(answer.logits[0].tolist())

    variants = [
        {},
        {"tau": 0.9},
        {"beta": 0.1},
        {"neighbours": 1},
        {"max_window": 2},
        {"counts": "released"},
        {"order": "raster"},
        {"inner": True, "inner_layer": 2},
        {"inner": True, "inner_layer": 3},
        {"inner": True, "inner_layer": 2, "inner_drop": 0.25},
    ]
    assert len({result(**v) for v in variants}) == len(variants)


def test_flops_count_similarities_distances_and_cosines():
    video = two_windows()
    budget = 12
    plan = make_plan(transition_similarity(video.features), 0.5, budget, **UNLIMITED)
    assert plan.static.sum(1).tolist() == [4, 0]
    outer = 2 * 32 * (3 * 6 + 4 * 4)
    assert HoliTom(retention=0.5).compressor_flops(video, budget) == outer
    assert HoliTom(retention=0.5, inner=True).compressor_flops(video, budget) == outer + 2 * 32 * 6 * 6
    assert HoliTom(retention=1 / 24).compressor_flops(video, 1) == 2 * 32 * 3 * 6, "nothing is clustered"


def test_stages_and_needs():
    assert HoliTom().stages == ("pre-LLM",)
    assert HoliTom(inner=True).stages == ("pre-LLM", "in-LLM")
    assert HoliTom().needs == {"received_attention"}


def test_half_precision_norms_do_not_overflow():
    features = torch.full((3, 2, 4), 2048.0, dtype=torch.float16)  # squares are beyond float16
    features[1:] += 2
    assert transition_similarity(features).min() > 0.999
    plan = make_plan(transition_similarity(features), 0.9, 2, **UNLIMITED)
    out = merge_video(features, torch.ones(3, 2), plan, neighbours=7, beta=0.6)
    assert torch.equal(out.tokens, torch.full((2, 4), 6148 / 3).half())


def test_a_zero_vector_is_similar_to_nothing():
    features = torch.ones(3, 2, 4)
    features[1, 0] = 0
    assert transition_similarity(features).tolist() == [[0, 1], [0, 1]]

"""FlashVID against the card's worked examples, the naive program, odd videos, and through the backbone."""

import dataclasses
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from baselines._flashvid_merge import merge_video
from baselines._flashvid_select import segment_of_frame, select_tokens
from baselines._flashvid_tree import exact_clusters, grow_forest, released_clusters
from baselines.fidelity.flashvid import check
from baselines.flashvid import FlashVID, frame_quota, inner_keep
from cacovid.errors import MethodError
from cacovid.records import VideoTokens
from naive import flashvid as naive

GOLDEN = Path(__file__).parents[1] / "golden" / "flashvid"


def video_of(features: torch.Tensor, scores: torch.Tensor | None = None) -> VideoTokens:
    frames, slots, width = features.shape
    if scores is None:
        scores = torch.rand(frames, slots, generator=torch.Generator().manual_seed(1))
    row = features.new_zeros(1, width)
    return VideoTokens(features, (1, slots), row, row, row, slice(0, 1), "clip", {"received_attention": scores})


def random_video(frames: int = 6, slots: int = 16, width: int = 12) -> VideoTokens:
    return video_of(*naive.inputs(frames, slots, width))


def compress(video: VideoTokens, retention: float, **fields):
    method = FlashVID(retention=retention, **fields)
    return method.compress(video, method.budget(len(video)))


def one_segment(frames: int) -> torch.Tensor:
    return torch.zeros(frames, dtype=torch.int64)


def at_angles(*degrees: float) -> torch.Tensor:
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], -1).float()


def trees(x: torch.Tensor, tree_mean: str = "released", floor: int = 0, threshold: float = 0.8) -> dict[tuple, list]:
    """(frame, slot) -> row of every token that does not merge; nothing is selected."""
    frames, slots, _ = x.shape
    free = torch.ones(frames, slots, dtype=torch.bool)
    least = torch.full((frames,), floor)
    forest = grow_forest(x, free, one_segment(frames), least, threshold, tree_mean)
    left = (~forest.merged).flatten().nonzero().squeeze(1).tolist()
    return {divmod(n, slots): forest.rows[n].tolist() for n in left}


# --- the card's examples ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retention", "each", "nominal", "after", "average"),
    [
        (0.10, (25, 18, 7), 800, 240, 10.20),
        (0.15, (37, 26, 11), 1184, 356, 15.11),
        (0.20, (49, 35, 14), 1568, 471, 20.00),
        (0.25, (62, 44, 18), 1984, 596, 25.31),
    ],
)
def test_t1_released_numbers_of_tokens(retention, each, nominal, after, average):
    assert frame_quota(196, retention, 1.25, 0.7) == each
    method = FlashVID(retention=retention, counts="released")
    assert method.expand() == 1.25
    quota = method.quota(video_of(torch.zeros(32, 196, 1)), 1)
    assert sum(quota) == nominal
    assert method.left(nominal, 1, 28) == after
    assert (20 * nominal + 8 * after) / 28 / 6272 * 100 == pytest.approx(average, abs=0.005)


@pytest.mark.parametrize(
    ("at_least", "lengths"), [(1, [2, 4]), (2, [2, 4]), (4, [1, 1, 2, 2]), (6, [1] * 6), (9, [1] * 6)]
)
def test_t2_segments_are_cut_at_the_threshold_and_where_frames_differ_most(at_least, lengths):
    steps = torch.tensor([0.95, 0.5, 0.97, 0.92, 0.99]).double().acos().rad2deg()
    means = at_angles(0, *steps.cumsum(0).tolist())
    assert segment_of_frame(means, 0.9, at_least).bincount().tolist() == lengths


@pytest.mark.parametrize(
    ("attention", "picked"),
    [
        ([1, 1, 1, 1], [[3], [0, 3], [0, 2, 3]]),
        ([1, 3, 1, 1], [[3], [1, 3], [1, 2, 3]]),
        ([1, 1, 5, 1], [[2], [0, 2], [0, 2, 3]]),
    ],
)
def test_t3_selection_v1_weighs_the_candidate_alone(attention, picked):
    x = at_angles(0, 10, 90, 180)[None]
    scores = torch.tensor([attention]).float()
    for count, slots in enumerate(picked, 1):
        picks = select_tokens(x, scores, one_segment(1), count, "v1")
        assert sorted(picks[0].tolist()) == slots


def test_t4_v2_picks_a_token_again_where_relevance_is_not_positive():
    x, scores = torch.tensor([[[3.0, 0], [0, 1], [-1, 0], [0, -1]]]), torch.ones(1, 4)
    picks = {
        (selector, distinct): sorted(select_tokens(x, scores, one_segment(1), 3, selector, distinct)[0].tolist())
        for selector in ("v1", "v2")
        for distinct in (True, False)
    }
    assert picks[("v2", False)] == [0, 0, 0]
    assert picks[("v2", True)] == [0, 1, 3], "of relevance 1.5, 0, -0.5, 0"
    assert picks[("v1", False)] == picks[("v1", True)] == [0, 1, 2]
    equal = torch.ones(1, 4, 2)
    assert select_tokens(equal, scores, one_segment(1), 3, "v1", distinct=False).unique().numel() == 3, "v1 has a guard"


STAR = torch.tensor([[[1.0, 0], [0, 1]], [[3, 0], [2, 0]]])
CHAIN = torch.tensor([[[1.0, 0], [0, 1]], [[2, 0], [0, -1]], [[3, 0], [0, 1]]])


def test_t5_trees_and_the_released_count_of_a_chain():
    for tree_mean in ("released", "fixed"):
        assert trees(STAR, tree_mean) == {(0, 0): [2, 0], (0, 1): [0, 1]}, "children of one root: both count right"
    assert trees(CHAIN) == {(0, 0): [3, 0], (0, 1): [0, 1], (1, 1): [0, -1], (2, 1): [0, 1]}
    assert trees(CHAIN, "fixed")[(0, 0)] == [2, 0]
    still = torch.tensor([1.0, 2]).expand(4, 1, 2)
    assert trees(still) == {(0, 0): [2, 4]}, "four equal tokens come out twice as long"
    assert trees(still, "fixed") == {(0, 0): [1, 2]}


def test_t6_the_whole_stage():
    f, i, k = (torch.arange(n, dtype=torch.float64) for n in (6, 12, 8))
    f, i, k = f[:, None, None], i[None, :, None], k[None, None, :]
    x = torch.sin(0.9 * (i + 1) * (k + 1) + 0.3 * i**2) + (0.02 + 0.09 * i) * torch.sin(1.7 * f * (k + 1) + 0.4 * i)
    x = (x + 0.5 + 1.5 * (f >= 4) * torch.cos(1.1 * (k + i))).float()
    scores = ((torch.sin(2.1 * i + 0.8 * f) + 1.1)[..., 0] / 100).float()
    each, selected, _ = frame_quota(12, 0.5, 1.25, 0.5)
    assert (each, selected) == (8, 4)
    settings = {"alpha": 0.5, "segment_threshold": 0.3, "min_segments": 2, "distinct": False, "counts": "released"}
    for selector, tokens, total, fixed, picks in (
        ("v2", 50, 204.583, 203.953, [[1, 3, 4, 7], [0, 1, 3, 9]]),
        ("v1", 49, 169.502, 163.742, [[1, 4, 6, 10], [0, 3, 6, 7]]),
    ):
        out = merge_video(x, scores, [each] * 6, selector=selector, **settings)
        assert out.segment.bincount().tolist() == [2, 4]
        assert out.picks[:2].sort().values.tolist() == picks
        assert len(out.compressed) == tokens
        assert out.compressed.tokens.sum().item() == pytest.approx(total, abs=2e-3)
        out = merge_video(x, scores, [each] * 6, selector=selector, tree_mean="fixed", **settings)
        assert out.compressed.tokens.sum().item() == pytest.approx(fixed, abs=2e-3)


def test_the_golden_vectors_hold():
    checks = check(GOLDEN)
    assert len(checks) == 75
    assert [c for c in checks if not c.passed] == []


# --- steps ------------------------------------------------------------------------------------------------------


def test_first_pick_is_the_token_farthest_from_its_nearest_neighbour():
    x = at_angles(0, 30, 100, 130)[None]
    assert select_tokens(x, torch.tensor([[1.0, 2, 1, 1]]), one_segment(1), 1, "v1").tolist() == [[1]]
    by_distance = select_tokens(at_angles(0, 5, 90, 92)[None], None, one_segment(1), 2, "diversity")
    assert by_distance.tolist() == [[0, 3]], "tokens 0 and 1 tie for the first: the lower slot"


def test_attention_alone_is_top_k_in_falling_order():
    scores = torch.tensor([[0.1, 0.4, 0.4, 0.2]])
    x = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0))
    assert select_tokens(x, scores, one_segment(1), 3, "attention").tolist() == [[1, 2, 3]]


def test_relevance_is_to_the_segment_not_to_the_frame():
    x = torch.stack([at_angles(0, 90), at_angles(0, 0)])
    x = torch.cat([x, 5 * at_angles(90, 90)[None]])
    scores = torch.ones(3, 2)
    first = select_tokens(x, scores, torch.tensor([0, 0, 1]), 1, "v2")[0, 0]
    assert first == 0, "0 degrees is what the segment's two frames are about"
    assert select_tokens(x, scores, one_segment(3), 1, "v2")[0, 0] == 1, "with the third frame 90 degrees is"


def test_the_floor_raises_the_threshold_until_more_than_it_stays():
    x = torch.stack([at_angles(0, 60, 120, 180), at_angles(1, 62, 124, 188)])
    assert len(trees(x)) == 4, "all of the second frame merge"
    left = trees(x, floor=3)  # 6 of 8 at least: the two best would leave 6, strictly above the second leaves 7
    assert len(left) == 7
    assert (1, 0) not in left, "the most similar one merges"
    assert len(trees(x, floor=4)) == 8


def test_selected_tokens_neither_merge_nor_receive_and_a_cut_is_not_crossed():
    x = at_angles(0, 1, 90).expand(3, 3, 2)
    free = torch.tensor([[False, True, True], [True, False, True], [True, True, True]])
    forest = grow_forest(x, free, torch.tensor([0, 0, 1]), one_segment(3), 0.8, "fixed")
    assert forest.merged.tolist() == [[False] * 3, [True, False, True], [False] * 3]
    assert forest.root.tolist() == [0, 1, 2, 1, 4, 2, 6, 7, 8], "slot 0 joins slot 1: the best that is free"


@pytest.mark.parametrize(
    ("roots", "total", "exact", "released"),
    [
        ([5, 1, 4, 0], 5, [2, 1, 2, 0], [3, 1, 2, 0]),
        ([1, 5, 4], 5, [1, 2, 2], [1, 3, 2]),
        ([4, 4], 3, [1, 2], [2, 2]),
        ([1, 1, 1, 1], 2, [0, 0, 1, 1], [1, 1, 1, 1]),
        ([3, 2], 9, [3, 2], [3, 2]),
        ([3, 2], 0, [0, 0], [0, 0]),
    ],
)
def test_clusters_of_each_frame(roots, total, exact, released):
    assert exact_clusters(roots, total) == exact
    assert released_clusters(roots, total) == released


def test_inner_cut_takes_the_mean_over_heads_and_the_earlier_of_equals():
    weights = torch.tensor([[0.9, 0.0, 0.1, 0.3], [0.0, 0.4, 0.5, 0.3]])
    assert inner_keep(weights, 2).tolist() == [0, 2]
    assert inner_keep(weights, 3).tolist() == [0, 2, 3]


# --- the fast program is the naive one --------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "slots", "width"), [(1, 9, 12), (2, 16, 8), (7, 25, 24)])
@pytest.mark.parametrize("label", list(naive.CASES))
def test_fast_is_naive(label, frames, slots, width):
    make, fast, slow = naive.CASES[label]
    inputs = make(frames, slots, width)
    ours, theirs = fast(*inputs), slow(*inputs)
    for a, b in zip(*((out if isinstance(out, tuple) else (out,)) for out in (ours, theirs)), strict=True):
        if a.is_floating_point():
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)
        else:
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    "options",
    [
        {"tree_mean": "fixed"},
        {"counts": "released"},
        {"selector": "v1"},
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"merge_threshold": 0.3, "tree_mean": "fixed"},
        {"merge_threshold": 1.0},
        {"neighbours": 2},
        {"min_segments": 3, "segment_threshold": -1.0},
        {"segment_threshold": 1.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("quota", [[5, 6, 5, 6, 5, 6], [0, 1, 0, 1, 0, 1], [12] * 6, [15, 16] * 3], ids=str)
def test_fast_is_naive_with_every_option(options, quota):
    x, scores = naive.inputs(6, 16, 12)
    options = {"min_segments": 2, **options}
    ours = merge_video(x, scores, quota, **options).compressed
    tokens, position, owner = naive.naive_merge_video(x, scores, quota, **options)
    assert torch.equal(ours.position, position)
    assert torch.equal(ours.owner, owner)
    torch.testing.assert_close(ours.tokens, tokens, rtol=1e-5, atol=1e-4)
    if options.get("counts") != "released":
        assert len(ours) == sum(quota)


# --- the budget -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [2, 3, 4, 5, 12, 24, 28, 36, 48])
def test_layer_average_is_r_to_half_a_token_at_any_depth_and_budget(layers):
    for frames, slots in ((1, 16), (32, 196), (5, 7)):
        video = video_of(torch.zeros(frames, slots, 1))
        for budget in sorted({*range(1, 13), *range(13, len(video), 1 + len(video) // 12), len(video)}):
            if budget > len(video):
                continue
            schedule = FlashVID(retention=budget / len(video)).schedule(video, layers)
            assert abs(sum(schedule) / layers - budget) <= 0.5 + 1e-9
            assert schedule == sorted(schedule, reverse=True) and schedule[-1] >= 1


def test_on_28_layers_the_cut_is_the_released_one_up_to_rounding():
    video = video_of(torch.zeros(32, 196, 1))
    for retention in (0.1, 0.15, 0.2, 0.25):
        schedule = FlashVID(retention=retention).schedule(video, 28)
        assert schedule[19] > schedule[20]
        assert schedule[0] == pytest.approx(1.25 * retention * 6272, abs=1.5)
        assert schedule[20] == pytest.approx(0.3 * schedule[0], abs=3.3)  # one token less enters: 2.5 more are left


def test_what_is_left_is_rounded_to_the_nearest_token():
    method = FlashVID(retention=0.1)
    assert method.left(783, 627, 28) == 237  # (28 * 627 - 20 * 783) / 8 = 237
    assert method.left(785, 628, 28) == 236  # 235.5: halves go up
    assert method.left(3, 3, 28) == 3 and method.left(4, 3, 28) == 1, "at least one"


def test_above_four_fifths_all_tokens_enter_and_fewer_are_dropped():
    video = random_video()
    method = FlashVID(retention=0.9)
    out = method.compress(video, method.budget(len(video)))
    assert torch.equal(out.tokens, video.flat)
    assert method.schedule(video, 28) == [96] * 20 + [61] * 8  # 28 * 86 = 20 * 96 + 8 * 61


@pytest.mark.parametrize("frames", [1, 2, 3, 8, 9])
@pytest.mark.parametrize("retention", [0.1, 0.25, 0.5, 0.79])
def test_exactly_what_the_schedule_says_enters(frames, retention):
    video = random_video(frames)
    for fields in ({}, {"inner": False}, {"layer": 7, "llm_ratio": 0.5}, {"counts": "released"}):
        method = FlashVID(retention=retention, **fields)
        out = method.compress(video, method.budget(len(video)))
        assert len(out) == method.schedule(video, 28)[0]
        if fields.get("inner") is False:
            assert len(out) == method.budget(len(video))


def test_released_counts_exceed_the_frames_share_by_a_token_a_frame_at_most():
    video = random_video(9, 36)
    for retention in (0.1, 0.3, 0.6):
        method = FlashVID(retention=retention, counts="released", min_segments=3)
        assert method.adaptive
        nominal = sum(method.quota(video, method.budget(len(video))))
        assert nominal <= len(method.compress(video, method.budget(len(video)))) <= nominal + 9
    full = FlashVID(retention=0.9, counts="released")
    assert len(full.compress(video, full.budget(len(video)))) == len(video), "1.25 * 0.9 is more than there is"


def test_expansion_follows_layer_and_ratio():
    assert FlashVID().expand() == 1.25
    assert FlashVID(layer=10, llm_ratio=0.5).expand() == pytest.approx(28 / 19)
    assert FlashVID(layer=28).expand() == FlashVID(inner=False).expand() == 1
    assert FlashVID(expansion=1.1).expand() == 1.1


# --- what comes out ---------------------------------------------------------------------------------------------


def test_selected_tokens_are_bit_equal_and_rows_are_means_of_what_they_own():
    video = random_video(4)
    selected = compress(video, 0.4, alpha=1.0)
    assert torch.equal(selected.tokens, video.flat[selected.position])
    assert (selected.owner >= 0).sum() == len(selected), "the others are dropped"
    for fields in ({"merge_threshold": 1.0}, {"merge_threshold": -1.0, "min_segments": 1, "segment_threshold": -1.0}):
        out = compress(video, 0.4, alpha=0.0, tree_mean="fixed", **fields)
        assert (out.owner >= 0).all(), "nothing is dropped"
        assert torch.equal(out.owner[out.position], torch.arange(len(out)))
        one_tree = fields["merge_threshold"] == 1.0
        for row in range(len(out)):
            mean = video.flat[out.owner == row].mean(0)
            if one_tree:
                torch.testing.assert_close(out.tokens[row], mean, rtol=1e-5, atol=1e-5)
        assert one_tree or (out.owner.bincount() > 1).any(), "tokens merged"


def test_a_segment_of_one_frame_clusters_its_selected_tokens_again():
    video = random_video(5)
    out = compress(video, 0.5, min_segments=5)
    counts = out.position.bincount(minlength=len(video))
    assert counts.max() == 2, "a selected token and a cluster's centre"
    assert (out.position.diff() >= 0).all()
    for position in (counts == 2).nonzero().flatten().tolist():
        first = int((out.position == position).nonzero()[0])
        assert torch.equal(out.tokens[first], video.flat[position])
        assert out.owner[position] == first
    assert FlashVID.repeats
    joint = compress(video, 0.5, min_segments=1, segment_threshold=-1.0)
    assert joint.position.bincount().max() == 1, "in longer segments none occurs twice"


@pytest.mark.parametrize("features", [torch.zeros(5, 9, 8), torch.ones(5, 9, 8), torch.rand(1, 9, 8).expand(5, 9, 8)])
@pytest.mark.parametrize("selector", ["v2", "v1", "attention", "diversity"])
def test_still_and_empty_videos_give_the_budget_and_no_nan(features, selector):
    video = video_of(features)
    for retention in (1 / 45, 0.2, 0.6):
        for fields in ({}, {"min_segments": 2}, {"tree_mean": "fixed", "min_segments": 1}):
            method = FlashVID(retention=retention, selector=selector, **fields)
            out = method.compress(video, method.budget(len(video)))
            assert len(out) == method.schedule(video, 28)[0]
            assert out.tokens.isfinite().all()
            assert (out.position.diff() >= 0).all()


def test_a_still_video_has_its_own_tokens_merged_over_time():
    still = torch.randn(1, 9, 8, generator=torch.Generator().manual_seed(2)).expand(6, 9, 8)
    out = compress(video_of(still), 0.15, alpha=0.0, min_segments=1, tree_mean="fixed", inner=False)
    assert (out.position < 9).all(), "everything hangs on the first frame"
    twice = compress(video_of(still), 0.15, alpha=0.0, min_segments=1, inner=False)
    torch.testing.assert_close(twice.tokens, out.tokens * 3, rtol=1e-4, atol=1e-5)  # chains of 6: the sum of 6 over 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_and_returned_as_it_came(dtype):
    video = random_video()
    half = dataclasses.replace(video, features=video.features.to(dtype))
    exact = dataclasses.replace(video, features=half.features.float())
    out, reference = compress(half, 0.3, min_segments=2), compress(exact, 0.3, min_segments=2)
    assert out.tokens.dtype == dtype
    assert torch.equal(out.position, reference.position)
    assert torch.equal(out.tokens, reference.tokens.to(dtype))


def test_features_are_not_written_to():
    video = random_video()
    before = video.features.clone()
    compress(video, 0.3, min_segments=2)
    assert torch.equal(video.features, before)


def test_retention_one_is_the_identity():
    video = random_video(3)
    for fields in ({}, {"counts": "released"}, {"inner": False}):
        out = compress(video, 1.0, **fields)
        assert torch.equal(out.tokens, video.flat)
        assert torch.equal(out.position, torch.arange(48))
        assert FlashVID(**fields).schedule(video, 28) == [48] * 28


# --- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"alpha": 1.2}, r"alpha=1.2, expected 0 <= alpha <= 1"),
        ({"merge_threshold": -1.5}, r"merge_threshold=-1.5, expected -1 <= merge_threshold <= 1"),
        ({"segment_threshold": 2.0}, r"segment_threshold=2.0, expected -1 <= segment_threshold <= 1"),
        ({"min_segments": 0}, r"min_segments=0, expected >= 1"),
        ({"neighbours": 0}, r"neighbours=0, expected >= 1"),
        ({"llm_ratio": 0.0}, r"llm_ratio=0.0, expected 0 < llm_ratio <= 1: the share that is left"),
        ({"layer": 0}, r"layer=0, expected an integer >= 1 or None"),
        ({"layer": "20"}, r"layer='20', expected an integer >= 1 or None"),
        ({"expansion": 0.8}, r"expansion=0.8, expected a number >= 1, or None to derive it"),
        ({"expansion": float("nan")}, r"expansion=nan, expected a number >= 1"),
        ({"expansion": 1.25, "inner": False}, r"expansion=1.25 without the inner cut is a layer average of 1.25 r"),
        ({"selector": "v3"}, r"selector='v3', expected one of 'v2', 'v1', 'attention', 'diversity'"),
        ({"tree_mean": "mean"}, r"tree_mean='mean', expected one of 'released', 'fixed'"),
        ({"counts": "round"}, r"counts='round', expected one of 'exact', 'released'"),
        ({"positions": "gaps"}, r"positions='gaps', expected one of 'original', 'compact'"),
    ],
)
def test_bad_fields_are_refused(fields, words):
    with pytest.raises(MethodError, match=words):
        FlashVID(retention=0.5, **fields)


def test_attention_of_another_shape_is_refused():
    video = video_of(torch.rand(2, 16, 4), torch.rand(2, 64))
    with pytest.raises(MethodError, match=r"received_attention \(2, 64\), expected \(2, 16\): pool it like the feat"):
        compress(video, 0.5)


def test_a_layer_average_that_no_cut_can_reach_is_refused_with_the_expansion_that_can():
    video = random_video()
    words = r"120 tokens in the first 20 of 24 layers .* average of 96.*use expansion=1.132 .* or layer=None"
    with pytest.raises(MethodError, match=words):
        FlashVID(retention=0.5, layer=20).left(120, 96, 24)
    with pytest.raises(MethodError, match=r"use expansion=1.132"):
        FlashVID(retention=0.5, layer=20).schedule(video, 24)
    schedule = FlashVID(retention=0.5, layer=20, expansion=1.132).schedule(video, 24)
    assert sum(schedule) / 24 == pytest.approx(48, abs=0.5)


# --- through the backbone ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 5])
@pytest.mark.parametrize("retention", [0.9, 0.3])
def test_what_is_spent_is_the_schedule(backbone, ask, frames, retention):
    for fields in ({}, {"inner": False}, {"layer": 2, "expansion": 1.3}, {"counts": "released"}):
        method = FlashVID(retention=retention, **fields)
        request = ask(backbone, frames)
        answer = backbone.answer([request], method, max_new_tokens=2)[0]
        video = backbone.encode([request], method.needs)[0]
        assert list(answer.spent.layers) == method.schedule(video, 4)
        assert answer.spent.measure == "layer_average"
        if "counts" not in fields:
            assert not answer.spent.missed
            assert answer.spent.realised == pytest.approx(retention * frames * 16, abs=1)
        assert len(answer.kept) == answer.spent.kept
        assert (answer.kept.diff() >= 0).all()


def test_a_budget_of_one_token_works(backbone, ask):
    for frames in (1, 6):
        spent = backbone.answer([ask(backbone, frames)], FlashVID(retention=1 / (frames * 16)), max_new_tokens=1)[
            0
        ].spent
        assert spent.layers == (1, 1, 1, 1)


def test_the_cut_keeps_what_the_last_prompt_row_attends_to(backbone, ask):
    seen = []

    class Spy(FlashVID):
        def prune_layer(self, layer, state, budget):
            cut = super().prune_layer(layer, state, budget)
            if cut is not None:
                seen.append((layer, cut.keep, state.attention(state.last_row)[0].mean(0)))
            return cut

    backbone.answer([ask(backbone)], Spy(retention=0.4), max_new_tokens=1)
    [(layer, keep, scores)] = seen
    assert layer == 3, "round(4 * 20 / 28)"
    dropped = torch.ones(len(scores), dtype=torch.bool).index_fill(0, keep, False)
    assert scores[keep].min() > scores[dropped].max()


def test_every_setting_changes_what_the_llm_reads(backbone, ask):
    request = ask(backbone)

    def read(**fields):
        method = FlashVID(retention=0.55, **{"alpha": 0.5, **fields})
        answer = backbone.answer([request], method, max_new_tokens=1, keep_logits=True)[0]
        return tuple(answer.logits[0].tolist())

    joint = {"min_segments": 1, "segment_threshold": -1.0}  # by default six frames are six segments, without trees
    variants = [
        {},
        {"alpha": 0.4},
        {"neighbours": 2},
        {"selector": "v1"},
        {"selector": "attention"},
        {"selector": "diversity"},
        {"inner": False},
        {"layer": 2, "expansion": 1.25},
        {"layer": 2, "expansion": 1.35},
        {"llm_ratio": 0.5},
        {"positions": "original"},
        joint,
        {**joint, "segment_threshold": 0.935},
        {**joint, "min_segments": 4},
        {**joint, "counts": "released"},
        {**joint, "merge_threshold": 0.95},
        {**joint, "tree_mean": "fixed"},
    ]
    results = [read(**fields) for fields in variants]
    same = [(variants[i], variants[j]) for i, j in combinations(range(len(variants)), 2) if results[i] == results[j]]
    assert same == []


def test_stages_and_needs_say_what_is_used(backbone, ask):
    assert FlashVID().stages == ("pre-LLM", "in-LLM")
    assert FlashVID(inner=False).stages == ("pre-LLM",)
    assert FlashVID().needs == {"received_attention"}
    assert FlashVID(selector="diversity").needs == frozenset()
    answer = backbone.answer([ask(backbone)], FlashVID(retention=0.3, selector="diversity"), max_new_tokens=1)[0]
    assert not answer.spent.missed


def test_all_budget_modes_are_met(backbone, ask):
    for mode in ("nominal", "layer_average", "flops"):
        spent = backbone.answer([ask(backbone)], FlashVID(retention=0.5), budget=mode, max_new_tokens=1)[0].spent
        assert abs(spent.realised - 48) <= spent.slack + 0.5


def test_layers_that_the_model_has_not_are_refused():
    state = SimpleNamespace(layers=[None] * 4, video=random_video(), flat=torch.arange(60))
    words = r"layer=4, expected 1 <= layer < 4: this model has 4 decoder layers; inner=False does without"
    with pytest.raises(MethodError, match=words):
        FlashVID(retention=0.5, layer=4).prune_layer(0, state, 48)
    assert FlashVID(layer=4).prune_layer(0, state, 96) is None, "at r = 1 there is nothing to cut"


def test_its_own_arithmetic_is_counted():
    video = random_video()
    pairs, width = 16**2, 12
    flops = {
        selector: FlashVID(retention=0.5, selector=selector).compressor_flops(video, 48)
        for selector in ("v2", "v1", "attention")
    }
    assert flops["v1"] == 2 * width * (6 + 5 + 6) * pairs, "inside frames, between them, clusters"
    assert flops["v2"] == flops["v1"] + 2 * width * 96
    assert flops["attention"] == 2 * width * (5 + 6) * pairs
    assert FlashVID(retention=0.9).compressor_flops(video, 86) == 0, "all tokens enter"
    assert FlashVID().compressor_flops(video, 96) == 0

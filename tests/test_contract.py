"""What every method promises, asked of every registered method: one is tested by being registered."""

import dataclasses
import inspect
from itertools import pairwise

import pytest
import torch
from each_family import both_families

from baselines.downsample import grid_sizes
from cacovid.backbones.base import compress_video
from cacovid.errors import BudgetError, MethodError
from cacovid.method import Method, ScoreMethod
from cacovid.records import NEEDS, Compressed
from cacovid.registry import build_method, method_class, method_names


def in_order(method, video, position):
    """Rising flat positions, unless the method says that its own order is another one or that tokens repeat."""
    if not method.ascending and video.axes is None:
        return method.repeats or len(position.unique()) == len(position)
    return bool((position.diff() >= (0 if method.repeats else 1)).all())


def encode(backbone, method, request):
    return backbone.encode([request], method.needs)[0]


@both_families
@pytest.mark.parametrize("frames", [1, 6])
@pytest.mark.parametrize("retention", [0.55, 0.5, 0.3, 0.25, 0.125, 0.1, 0.05])
def test_budget_is_met_and_order_kept(backbone, ask, pruner, count, retention, frames):
    method = pruner.build(retention)
    request = ask(backbone, frames)
    answer = backbone.answer([request], method, max_new_tokens=2)[0]
    spent, video = answer.spent, encode(backbone, method, request)
    assert len(video) == count(frames)
    assert spent.asked == round(retention * len(video))
    assert spent.measure == method.means
    assert not spent.missed or method.adaptive
    assert spent.slack < video.tokens_per_frame or method.adaptive, (
        "a method may miss its budget by less than one frame"
    )
    assert spent.kept == len(answer.kept)
    assert in_order(method, video, answer.kept), "the LLM reads tokens in time order, if the authors' does"
    assert answer.kept.min() >= 0 and answer.kept.max() < len(video)


@both_families
@pytest.mark.parametrize("frames", [1, 6])
def test_a_budget_of_one_token_works(backbone, ask, pruner, count, frames):
    method = pruner.build(1 / count(frames))
    spent = backbone.answer([ask(backbone, frames)], method, max_new_tokens=1)[0].spent
    assert spent.asked == 1
    assert spent.kept >= 1


@both_families
@pytest.mark.parametrize("retention", [1.0, 0.55, 0.5, 0.3, 0.25, 0.125, 0.1, 0.05])
def test_owner_and_position_agree(backbone, ask, pruner, retention):
    method = pruner.build(retention)
    video = encode(backbone, method, ask(backbone))
    out = compress_video(method, video, method.budget(len(video)))
    assert out.owner.shape == (len(video),)
    assert out.position.shape == (len(out),)
    assert out.tokens.dtype == video.features.dtype
    assert in_order(method, video, out.position)
    if not method.repeats:
        assert torch.equal(out.owner[out.position], torch.arange(len(out))), "a token went where it stands"
        assert set(out.owner.tolist()) - {-1} == set(range(len(out))), "every output row has an input"
    merged = (out.owner >= 0).sum() > len(out)
    assert merged or torch.equal(out.tokens, video.flat[out.position]), "pruning does not touch features"


@both_families
def test_same_video_same_tokens_and_no_random_state_moved(backbone, ask, pruner):
    method = pruner.build(0.3)
    video = encode(backbone, method, ask(backbone))
    state = torch.get_rng_state()
    first = method.compress(video, method.budget(len(video)))
    torch.manual_seed(1234)
    moved = torch.get_rng_state()
    second = method.compress(video, method.budget(len(video)))
    assert torch.equal(moved, torch.get_rng_state())
    torch.set_rng_state(state)
    assert torch.equal(first.tokens, second.tokens)
    assert torch.equal(first.position, second.position)


@both_families
def test_retention_one_is_the_identity(backbone, ask, case):
    method = case.build(1.0)
    video = encode(backbone, method, ask(backbone))
    out = method.compress(video, len(video))
    assert torch.equal(out.tokens, video.flat), "bit-equal"
    assert torch.equal(out.position, torch.arange(len(video)))
    assert torch.equal(out.owner, torch.arange(len(video)))


@both_families
def test_declared_needs_are_captured_and_suffice(backbone, ask, pruner):
    method = pruner.build(0.3)
    assert method.needs <= NEEDS
    video = encode(backbone, method, ask(backbone))
    assert set(video.captured) == set(method.needs), "nothing is captured that was not declared"
    for need in method.needs:
        axes = 1 if need == "patches" else 2  # patches are not pooled
        assert video.captured[need].shape[:axes] == video.features.shape[:axes]
    if method.needs:
        bare = dataclasses.replace(video, captured={})
        with pytest.raises(MethodError, match=r"was not captured .* `needs` must contain"):
            method.compress(bare, method.budget(len(bare)))


@pytest.mark.parametrize("need", sorted(NEEDS))
def test_undeclared_access_is_refused_with_words(backbone, ask, need):
    video = encode(backbone, build_method("uniform"), ask(backbone))
    with pytest.raises(MethodError, match=f"{need} was not captured .*captured: nothing.*must contain '{need}'"):
        getattr(video, need)


@pytest.mark.parametrize("name", method_names())
def test_a_method_says_what_it_is(name):
    cls = method_class(name)
    summary = (inspect.getdoc(cls) or "").splitlines()[0]
    assert 10 < len(summary) <= 110 and summary.endswith("."), "one line that describes the method"
    assert cls.__doc__ != Method.__doc__
    assert len(cls.source) > 10, "paper and official code, or `no paper`"
    if not cls.source.startswith("no paper"):
        assert "Ours differs: " in cls.__doc__, "say how ours differs from the original"
    assert cls.__dataclass_params__.frozen
    with pytest.raises(dataclasses.FrozenInstanceError):
        cls().retention = 0.5
    assert cls().stages or name == "full"


@pytest.mark.parametrize("retention", [0, -1, 1.5, float("nan"), float("inf")])
@pytest.mark.parametrize("name", [*method_names(), "uniform+attention_topk"])
def test_bad_retention_is_refused(name, retention):
    settings = {"attention_topk.variant": "B1"} if "+" in name else {}
    with pytest.raises(BudgetError, match=r"retention=.*expected 0 < retention <= 1: the share .* to KEEP"):
        build_method(name, retention=retention, **settings)


def test_a_budget_below_one_token_is_refused(backbone, ask, pruner):
    method = pruner.build(0.004)
    with pytest.raises(BudgetError, match=r"of 96 video tokens is a budget below one token; use retention >= 0.01"):
        backbone.answer([ask(backbone)], method)


def test_full_refuses_to_prune():
    with pytest.raises(BudgetError, match=r"full keeps every token: got retention=0.5, expected 1.0"):
        build_method("full", retention=0.5)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        (
            "attention_topk",
            {"variant": "A9"},
            r"variant='A9', expected one of 'A1', 'B1', 'B2', 'B3', 'B4', 'B5', 'B6'",
        ),
        ("attention_topk", {"scope": "clip"}, r"scope='clip', expected one of 'frame', 'global'"),
        ("attention_topk", {"rounding": "up"}, r"rounding='up', expected one of 'exact', 'round', 'floor', 'ceil'"),
        ("attention_topk", {"positions": "gaps"}, r"positions='gaps', expected one of 'original', 'compact'"),
        ("attention_topk", {"layer": 0}, r"layer=0, expected >= 1"),
        ("attention_topk", {"layer": "2"}, r"layer='2' is a str, expected int"),
        ("attention_topk", {"layer": 1.5}, r"layer=1.5 is a float, expected int"),
        ("random", {"seed": True}, r"seed=True is a bool, expected int"),
        ("fewer_frames", {"partial": "no"}, r"partial='no' is a str, expected bool"),
        ("uniform", {"retention": "0.5"}, r"retention='0.5' is a str, expected float"),
    ],
)
def test_bad_field_values_are_refused_with_the_allowed_ones(name, settings, words):
    with pytest.raises(MethodError, match=words):
        build_method(name, **settings)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy(Method):
    """Returns whatever it is told to."""

    tokens: object = None

    def compress(self, video, budget):
        return self.tokens(video)


@pytest.mark.parametrize(
    ("tokens", "error", "words"),
    [
        (lambda v: Compressed.keep(v, torch.arange(7)), BudgetError, r"Toy kept 7 of 96 .* asked for 48 \(allowed"),
        (lambda v: Compressed.keep(v, torch.arange(0)), MethodError, r"returned tokens \(0, 48\).*K >= 1"),
        (
            lambda v: Compressed(v.flat[:4, :5], torch.arange(4), torch.full((96,), -1)),
            MethodError,
            r"returned tokens \(4, 5\) with 4 positions; expected \(K, 48\)",
        ),
        (
            lambda v: Compressed(v.flat.double(), torch.arange(96), torch.arange(96)),
            MethodError,
            r"changed the dtype to torch.float64, expected torch.float32: cast scores, not features",
        ),
    ],
    ids=["budget", "empty", "width", "dtype"],
)
def test_a_method_that_breaks_the_contract_is_refused(backbone, ask, tokens, error, words):
    with pytest.raises(error, match=words):
        backbone.answer([ask(backbone)], Toy(retention=0.5, tokens=tokens), max_new_tokens=1)


class FlatScores(ScoreMethod):
    """One score too few."""

    def score(self, video):
        return torch.zeros(video.frames, video.tokens_per_frame - 1)


def test_scores_of_the_wrong_shape_are_refused(backbone, ask):
    with pytest.raises(ValueError, match=r"FlatScores.score returned shape \(6, 15\), expected .* 6 x 16 tokens"):
        backbone.answer([ask(backbone)], FlatScores(retention=0.5))


def test_a_cut_inside_the_llm_must_rise_and_keep_something(backbone, ask):
    from cacovid.records import LayerCut

    class Falling(Method):
        def prune_layer(self, layer, state, budget):
            return LayerCut(torch.tensor([5, 3]))

    with pytest.raises(MethodError, match=r"Falling must keep .* rising row numbers; got \[5, 3\]"):
        backbone.answer([ask(backbone)], Falling(retention=2 / 96))


def test_random_is_fixed_by_seed_and_clip_and_nested(backbone, ask):
    def kept(retention=0.25, seed=0, clip="a"):
        video = encode(backbone, build_method("random"), ask(backbone, clip=clip))
        method = build_method("random", seed=seed, retention=retention)
        return set(method.compress(video, method.budget(len(video))).position.tolist())

    assert kept() == kept()
    assert kept() != kept(seed=1)
    assert kept() != kept(clip="b")
    assert kept(0.1) < kept(0.25) < kept(0.5), "what a low retention keeps, a higher one keeps"


@pytest.mark.parametrize("retention", [0.5, 0.2, 0.05])
def test_fewer_frames_keeps_whole_frames_and_one_part(backbone, ask, retention):
    method = build_method("fewer_frames", retention=retention)
    video = encode(backbone, method, ask(backbone))
    budget = method.budget(len(video))
    counts = method.compress(video, budget).position.div(16, rounding_mode="floor").bincount(minlength=6)
    assert (counts == 16).sum() == budget // 16
    assert sorted(counts[(counts > 0) & (counts < 16)].tolist()) == ([budget % 16] if budget % 16 else [])
    if budget < 16:
        assert counts.nonzero().item() == 2, "the middle frame"


@pytest.mark.parametrize("retention", [0.9, 0.55, 0.3, 0.125, 0.07, 0.03])
def test_downsample_averages_what_it_owns(backbone, ask, retention):
    method = build_method("downsample", retention=retention)
    video = encode(backbone, method, ask(backbone))
    budget = method.budget(len(video))
    out = method.compress(video, budget)
    assert budget - 5 < len(out) <= budget, "from below; the grids' steps here are 1x1, 1x2, 2x2, .. 3x4, 4x4"
    assert (out.owner >= 0).all(), "nothing is dropped"
    sizes = {f: int((out.position // 16 == f).sum()) for f in range(6)}
    if budget >= 6:
        assert max(sizes.values()) - min(sizes.values()) <= 4, "neighbouring grid sizes"
    twos = [f for f, n in sizes.items() if n == 4]  # 2x2 of 4x4: cells do not overlap, so means are plain
    for f in twos:
        rows = out.owner[f * 16 : f * 16 + 16]
        for row in rows.unique():
            mean = video.features[f][rows == row].mean(0)
            torch.testing.assert_close(out.tokens[row], mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("grid", [(14, 14), (1, 1), (4, 9), (9, 4), (1, 5)])
def test_downsample_climbs_from_one_cell_to_the_whole_grid(grid):
    sizes = grid_sizes(*grid)
    assert (sizes[0], sizes[-1]) == ((1, 1), grid)
    for (a, b), (c, d) in pairwise(sizes):
        assert (c - a) + (d - b) == 1, "one row or one column more"
    if grid[0] == grid[1]:
        assert all(abs(a - b) <= 1 for a, b in sizes)
    else:
        assert all(abs(a / grid[0] - b / grid[1]) <= 1 / min(grid) for a, b in sizes), "near the grid's shape"


def test_downsample_below_one_token_a_frame_averages_over_time(backbone, ask):
    method = build_method("downsample", retention=3 / 96)
    video = encode(backbone, method, ask(backbone))
    out = method.compress(video, 3)
    means = video.features.unflatten(0, (3, 2)).flatten(1, 2).mean(1)
    torch.testing.assert_close(out.tokens, means, rtol=1e-5, atol=1e-6)
    assert torch.equal(out.owner, torch.arange(3).repeat_interleave(32))

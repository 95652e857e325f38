"""DivPrune against worked examples, its step-by-step form, and what copies, zeros and few tokens do to it."""

from functools import cache

import pytest
import torch
from torch.nn.functional import normalize

import baselines.divprune
from baselines.divprune import DivPrune, distances, farthest_first
from cacovid.errors import BudgetError, MethodError
from cacovid.records import VideoTokens
from naive import divprune as naive

ANGLES = torch.tensor([0, 10, 90, 100, 200]).deg2rad()
T1 = torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def common(total: int, width: int, seed: int = 0) -> torch.Tensor:
    """Rows with a strong common component, as projected video tokens have."""
    return noise(total, width, seed=seed) + 2 * noise(1, width, seed=seed + 1)


def video_of(features: torch.Tensor) -> VideoTokens:
    row = features.new_zeros(1, features.shape[-1])
    return VideoTokens(features, (1, features.shape[1]), row, row, row, slice(0, 1), "clip")


@pytest.fixture(params=[True, False], ids=["held", "computed"])
def rows_held(request, monkeypatch):
    """Distances from a matrix, or row by row as for a very long video."""
    if not request.param:
        monkeypatch.setattr(baselines.divprune, "HELD", 0)


@pytest.fixture(params=[7, 512], ids=["blocks", "one block"])
def blocks(request, monkeypatch):
    monkeypatch.setattr(baselines.divprune, "BLOCK", request.param)


def test_t1_angles_by_hand(rows_held):
    row, nearest = distances(T1)
    by_hand = torch.tensor(
        [
            [0, 0.0152, 1, 1.1736, 1.9397],
            [0.0152, 0, 0.8264, 1, 1.9848],
            [1, 0.8264, 0, 0.0152, 1.3420],
            [1.1736, 1, 0.0152, 0, 1.1736],
        ]
    )
    for index, expected in enumerate(by_hand):
        torch.testing.assert_close(row(torch.tensor([index])), expected, rtol=0, atol=5e-5)
    torch.testing.assert_close(nearest, torch.tensor([0.0152, 0.0152, 0.0152, 0.0152, 1.1736]), rtol=0, atol=5e-5)
    assert farthest_first(T1, 3).tolist() == [4, 1, 3]
    assert DivPrune(retention=0.6).compress(video_of(T1[None]), 3).position.tolist() == [1, 3, 4]


@pytest.mark.parametrize("norms", [[1, 7, 0.1, 3, 50], [9, 1, 40, 0.1, 0.2]])
def test_t2_norms_do_not_matter(norms):
    scaled = T1 * torch.tensor(norms)[:, None]
    assert farthest_first(scaled, 3).tolist() == [4, 1, 3]
    if norms[2] == 40:
        euclidean = torch.cdist(scaled, scaled).fill_diagonal_(torch.inf)
        assert euclidean.amin(1).argmax() == 2, "guards the example: Euclidean distance starts elsewhere"


@pytest.mark.parametrize(("duplicates", "picks"), [("released", [3, 0, 0]), ("masked", [3, 0, 1])])
def test_t3_a_picked_token_is_picked_again_only_as_released(rows_held, duplicates, picks):
    rows = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    assert farthest_first(rows, 3, duplicates=duplicates).tolist() == picks


@pytest.mark.parametrize("width", [64, 896])
def test_t4_static_video(rows_held, blocks, width):
    static = noise(20, width).tile(4, 1)
    for count in (8, 20):
        masked, released = (farthest_first(static, count, duplicates=d) for d in ("masked", "released"))
        assert torch.equal(masked, released), "they differ once every content is in"
        assert (masked < 20).all(), "of equal tokens the earliest is taken"
    assert len(farthest_first(static, 30, duplicates="released").unique()) == 20
    masked = farthest_first(static, 30)
    assert len(masked.unique()) == 30
    assert (masked[:20].sort().values == torch.arange(20)).all()
    assert masked[20:].tolist() == list(range(20, 30)), "then the earliest copies"


@cache
def step_by_step(duplicates: str, first: int | None) -> torch.Tensor:
    return naive.farthest_first(common(600, 256), 150, duplicates=duplicates, first=first)


@pytest.mark.parametrize("first", [None, 17])
@pytest.mark.parametrize("duplicates", ["masked", "released"])
def test_t5_incremental_is_the_step_by_step_form(rows_held, blocks, duplicates, first):
    given = None if first is None else torch.tensor([first])
    picks = farthest_first(common(600, 256), 150, duplicates=duplicates, first=given)
    assert torch.equal(picks, step_by_step(duplicates, first))


def test_the_papers_count():
    assert DivPrune(retention=0.098).budget(576) == 56


@pytest.mark.parametrize("frames", [1, 3])
def test_ties_go_to_the_earlier_token(rows_held, blocks, frames):
    """Distances that float32 holds exactly, hundreds of them equal."""
    (rows,), fast, slow = naive.CASES["farthest_first"][0](frames, 49, 32), *naive.CASES["farthest_first"][1:]
    unit = normalize(rows, dim=1)
    assert len((unit @ unit.T).unique()) < 40
    assert torch.equal(fast(rows), slow(rows))


def test_t6_picks_are_nested_and_gaps_shrink():
    rows = common(200, 32)
    picks = farthest_first(rows, 60)
    assert all(torch.equal(farthest_first(rows, k), picks[:k]) for k in (1, 2, 31, 59))
    unit = normalize(rows, dim=1).double()
    gaps = torch.stack([(1 - unit[p] @ unit[picks[:t]].T).min() for t, p in enumerate(picks) if t > 0])
    assert (gaps.diff() <= 1e-6).all()


def test_half_precision_features_are_compared_in_float32():
    rows = common(600, 256).bfloat16()
    assert torch.equal(farthest_first(rows, 150), farthest_first(rows.float(), 150))
    unit = normalize(rows, dim=1)
    assert len((1 - unit @ unit.T).unique()) < 1000, "guards the reason: bfloat16 has few distances"
    out = DivPrune(retention=0.25).compress(video_of(rows.view(6, 100, 256)), 150)
    assert out.tokens.dtype == torch.bfloat16


@pytest.mark.parametrize("duplicates", ["masked", "released"])
@pytest.mark.parametrize("zero", [[0], [3, 4], list(range(12))])
def test_zero_rows_are_at_distance_1_and_no_nan_arises(rows_held, zero, duplicates):
    rows = noise(12, 8).abs()  # all others are nearer than 1 to each other
    rows[zero] = 0
    row, nearest = distances(rows)
    assert nearest.isfinite().all()
    expected = torch.ones(12)
    expected[zero[0]] = 0
    torch.testing.assert_close(row(torch.tensor([zero[0]])), expected, rtol=0, atol=0)
    picks = farthest_first(rows, 12, duplicates=duplicates)
    assert picks[0] == zero[0]
    assert set(zero) <= set(picks[: len(zero) + 1].tolist())
    assert len(picks.unique()) == 12


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("duplicates", ["masked", "released"])
def test_budgets_from_one_token_to_all_but_one(duplicates, frames):
    video = video_of(noise(frames, 4, 8))
    for budget in (1, len(video) - 1):
        out = DivPrune(duplicates=duplicates, retention=budget / len(video)).compress(video, budget)
        assert len(out) == budget
        assert (out.position.diff() > 0).all()
        assert torch.equal(out.tokens, video.flat[out.position])


def test_one_token_that_is_the_whole_video():
    assert farthest_first(noise(1, 8), 1).tolist() == [0]
    row, nearest = distances(noise(1, 8))
    assert nearest.tolist() == [float("inf")] and row(torch.tensor([0])).tolist() == [0]


def test_a_token_kept_twice_is_owned_by_its_first_row():
    video = video_of(torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1]])[None])
    method = DivPrune(retention=0.75, duplicates="released")
    out = method.compress(video, 3)
    assert out.position.tolist() == [0, 0, 3]
    assert out.owner.tolist() == [0, -1, -1, 2]
    assert torch.equal(out.tokens, video.flat[out.position])
    assert method.repeats and not DivPrune().repeats


@pytest.mark.parametrize("duplicates", ["masked", "released"])
def test_r_1_is_the_identity_even_of_a_static_video(duplicates):
    video = video_of(noise(1, 6, 8).tile(3, 1, 1))
    out = DivPrune(duplicates=duplicates).compress(video, 18)
    assert out.tokens is video.flat or torch.equal(out.tokens, video.flat)
    assert torch.equal(out.position, torch.arange(18))
    assert torch.equal(out.owner, torch.arange(18))


def test_bad_settings_are_refused_with_words():
    with pytest.raises(MethodError, match=r"duplicates='official', expected one of 'masked', 'released'"):
        DivPrune(duplicates="official")
    with pytest.raises(BudgetError, match=r"of 5 video tokens is a budget below one token"):
        DivPrune(retention=0.05).budget(5)


def test_flops_are_the_products_above_the_diagonal(monkeypatch):
    video = video_of(noise(2, 50, 8))
    monkeypatch.setattr(baselines.divprune, "BLOCK", 30)
    held = DivPrune(retention=0.25).compressor_flops(video, 25)
    assert held == 2 * 8 * (30 * 100 + 30 * 70 + 30 * 40 + 10 * 10)
    monkeypatch.setattr(baselines.divprune, "HELD", 0)
    assert DivPrune(retention=0.25).compressor_flops(video, 25) == held + 2 * 8 * 24 * 100, "24 rows more"
    assert DivPrune().compressor_flops(video, 100) == 0


def test_through_the_backbone(backbone, ask):
    answer = backbone.answer([ask(backbone)], DivPrune(retention=0.25), max_new_tokens=2)[0]
    assert answer.spent.kept == 24
    assert set(answer.spent.layers) == {24}
    assert answer.spent.flops.compressor == 2 * 48 * 96**2
    video = backbone.encode([ask(backbone)], frozenset())[0]
    expected = naive.farthest_first(video.flat, 24)
    assert answer.kept.tolist() == expected.sort().values.tolist()
    sequence = backbone.sequence(video, answer.compressed, 24, DivPrune(retention=0.25))
    assert torch.equal(sequence.positions, torch.arange(len(sequence.embeds))), "renumbered without gaps"


def test_a_static_video_through_the_backbone(backbone, ask):
    """One frame shown six times: as released, fewer than half of the tokens read are different ones."""
    request = ask(backbone, 1)
    static = type(request)(request.frames.repeat(6, 0), request.prompt, request.clip)
    masked = backbone.answer([static], DivPrune(retention=0.5), max_new_tokens=1)[0]
    released = backbone.answer([static], DivPrune(retention=0.5, duplicates="released"), max_new_tokens=1)[0]
    assert len(masked.kept) == len(released.kept) == 48
    assert len(masked.kept.unique()) == 48
    assert len(released.kept.unique()) == 16

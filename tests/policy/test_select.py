"""The selection without loops equals a straight one with loops, token by token and frame by frame."""

from math import floor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cacovid.policy.select import Quota, _same_places, _tilt, _turns, allocate, positions_of, select
from naive_select import naive_counts, naive_select


@settings(max_examples=60, deadline=None)
@given(
    frames=st.integers(1, 9),
    size=st.integers(2, 30),
    retention=st.sampled_from([0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 0.9]),
    share=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
    cap=st.sampled_from([0.5, 1.0, 1.5, 4.0]),
    ties=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_equals_the_loops(
    frames: int, size: int, retention: float, share: float, cap: float, ties: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    tokens, scores = torch.randn(3, frames * size, 2), torch.randn(3, frames, 2)
    if ties:
        tokens = tokens.round()
    quota = Quota.of(retention, frames, size, share, min(1.0, cap * retention))
    if quota.keep < 1:
        return
    kept = select(tokens, scores, quota)
    for row in range(3):
        assert torch.equal(kept[row], naive_select(tokens[row], scores[row], quota))
    assert (kept.sum(1) == quota.keep).all()
    assert torch.equal(positions_of(kept, quota.keep)[1], kept[1].nonzero().flatten())


def test_more_important_frames_get_more() -> None:
    quota = Quota.of(0.25, 8, 25, 1.0, 0.375)
    counts = allocate(torch.arange(8.0)[None], quota)[0].sum(1)
    assert counts.sum() == floor(0.25 * 200)
    # What is left over goes to the first of the smallest, one each.
    assert (counts.diff() >= -1).all() and counts[-1] > counts[0]
    assert counts.max() <= quota.cap


def test_equal_scores_share_evenly_and_keep_the_earlier_tokens() -> None:
    quota = Quota.of(0.2, 4, 10, 1.0, 0.3)
    kept = select(torch.zeros(1, 40, 2), torch.zeros(1, 4, 2), quota)[0].view(4, 10)
    assert kept.sum(1).tolist() == [2, 2, 2, 2]
    assert kept[:, :2].all()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_logits_decide_what_is_kept_by_importance_alone(share: float) -> None:
    torch.manual_seed(0)
    quota = Quota.of(0.2, 4, 25, share, 0.3)
    scores = torch.randn(2, 4, 2)
    first, second = (select(torch.randn(1, 100, 2), scores[:1], quota) for _ in range(2))
    assert torch.equal(first, second) == (share == 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-41, 1e30])
def test_equal_and_neighbouring_scores_are_told_apart(dtype: torch.dtype, scale: float) -> None:
    torch.manual_seed(0)
    # Among equals and next neighbours, of both signs, with zeros of both signs: nothing but order decides, or one bit.
    unit = torch.tensor(scale, dtype=dtype)
    values = torch.stack([unit, unit.nextafter(torch.tensor(torch.inf, dtype=dtype)), torch.zeros((), dtype=dtype)])
    keep = torch.cat([values, -values])[torch.randint(6, (2, 5 * 40))]
    tokens = torch.stack([torch.zeros_like(keep), keep], -1)
    scores = torch.randn(2, 5, 2)
    quota = Quota.of(0.5, 5, 40, 1.0, 0.75)
    kept = select(tokens, scores, quota)
    for row in range(2):
        assert torch.equal(kept[row], naive_select(tokens[row], scores[row], quota))


def test_infinite_scores_are_first_and_last() -> None:
    torch.manual_seed(0)
    tokens, scores = torch.randn(1, 60, 2), torch.zeros(1, 3, 2)
    tokens[0, [0, 25], 1] = -torch.inf
    tokens[0, [19, 59], 1] = torch.inf
    quota = Quota.of(0.95, 3, 20, 1.0, 1.0)
    kept = select(tokens, scores, quota)[0]
    assert kept.sum() == quota.keep and kept[[19, 59]].all() and not kept[[0, 25]].any()


def test_bfloat16_rounds_neither_counts_nor_caps() -> None:
    scores = torch.tensor([1.0, 0.75, 0.5, 0.25], dtype=torch.bfloat16)
    quota = Quota.of(0.5, 4, 1024, 1.0, 0.75)
    counts = naive_counts(scores, quota)
    assert max(counts) > 256  # above which bfloat16 does not hold every integer
    assert allocate(scores[None], quota)[0].sum(1).tolist() == counts
    quota = Quota.of(0.5, 4, 1024, 1.0, 0.7315)
    assert allocate(scores[None], quota)[0].sum(1).max() == quota.cap == 749


@pytest.mark.parametrize("share", [0.75, 1.0])
def test_caps_above_a_frame_keep_what_the_release_keeps(share: float) -> None:
    torch.manual_seed(0)
    tokens, scores = torch.randn(4, 90, 2), torch.randn(4, 6, 2)
    quota = Quota.of(0.5, 6, 15, share, 2.0)
    assert quota.most(6) > 15
    kept = select(tokens, scores, quota)
    for row in range(4):
        assert torch.equal(kept[row], naive_select(tokens[row], scores[row], quota))
    assert kept.sum(1).eq(quota.keep).all() == (share < 1)


def test_what_is_made_once_serves_gradients_and_inference() -> None:
    torch.manual_seed(0)
    tokens, scores = torch.randn(2, 84, 2), torch.randn(2, 7, 2)
    quota = Quota.of(0.3, 7, 12, 0.5, 0.45)
    for made_once in (_tilt, _same_places, _turns):
        made_once.cache_clear()
    with torch.inference_mode():
        first = select(tokens, scores, quota)
    again = select(tokens.requires_grad_(), scores.requires_grad_(), quota)
    assert torch.equal(first, again)
    assert all(made_once.cache_info().misses == 1 for made_once in (_tilt, _same_places, _turns))

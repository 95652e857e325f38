"""The selection without loops equals a straight one with loops, token by token and frame by frame."""

from math import floor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cacovid.policy.select import Quota, allocate, positions_of, select
from naive_select import naive_select


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
    counts = allocate(torch.arange(8.0)[None], quota)[0]
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

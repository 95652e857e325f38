"""The clipped, group-relative objective and the capping of distributions, beyond their golden vectors."""

import pytest
import torch

from cacovid.training.capping import cap_probability
from cacovid.training.objective import Objective, advantages


def case(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    logits = torch.randn(40, 2, dtype=torch.float64, requires_grad=True)
    masks = (torch.rand(23, 40) < 0.1).long()
    return logits, logits.detach() + 0.1 * torch.randn(40, 2), masks, torch.rand(23, dtype=torch.float64)


def test_equal_rewards_teach_nothing() -> None:
    logits, old, masks, _ = case()
    Objective().tokens(logits, old, masks, torch.ones(23, dtype=torch.float64)).backward()
    assert not logits.grad.any()
    assert advantages(torch.tensor([1.0])).tolist() == [0.0]


def test_what_was_kept_in_good_rollouts_becomes_likelier() -> None:
    logits = torch.zeros(6, 2, requires_grad=True)
    masks = torch.tensor([[1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1]])
    Objective().tokens(logits, logits.detach(), masks, torch.tensor([1.0, 0.0])).backward()
    keep = -logits.grad[:, 1]
    assert (keep[:2] > 0).all() and (keep[4:] < 0).all()
    assert torch.equal(keep[2:4], torch.zeros(2))


def test_a_ratio_beyond_the_clip_has_no_gradient() -> None:
    logits = torch.tensor([[0.0, 3.0]], requires_grad=True)
    old = torch.zeros(1, 2)
    masks, rewards = torch.tensor([[1], [0]]), torch.tensor([1.0, 0.0])
    Objective(balanced=False).tokens(logits, old, masks, rewards).backward()
    assert not logits.grad.any(), "both rollouts moved past the clip in the right direction"
    logits.grad = None
    Objective(clip_low=0.99, clip_high=9.0, balanced=False).tokens(logits, old, masks, rewards).backward()
    assert logits.grad.any()


def test_balanced_weights_change_the_loss() -> None:
    logits, old, masks, rewards = case()
    balanced, plain = (Objective(balanced=b).tokens(logits, old, masks, rewards).item() for b in (True, False))
    assert balanced != pytest.approx(plain)


def naive_cap(p: torch.Tensor, cap: float, fixed: set[int] = frozenset()) -> torch.Tensor:
    """The recursion of the card, over one vector."""
    p = p.clamp_min(1 / len(p) ** 2).clone()
    p[list(fixed)] = 0
    p = p / p.sum()
    if len(p) - len(fixed) == 1 or p.max() <= cap:
        return p
    cap = min(cap, 0.999)
    at = int(p.argmax())
    rest = naive_cap(p, cap / (1 - cap), {*fixed, at}) * (1 - cap)
    rest[at] = cap
    return rest


@pytest.mark.parametrize("cap", [0.11, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("sharpness", [0.1, 3.0, 30.0])
def test_capping_a_batch_equals_the_recursion(cap: float, sharpness: float) -> None:
    torch.manual_seed(0)
    p = (torch.randn(20, 10) * sharpness).softmax(-1)
    capped = cap_probability(p, cap)
    for row, expected in zip(capped, p, strict=True):
        torch.testing.assert_close(row, naive_cap(expected, cap), atol=1e-6, rtol=1e-5)
    assert capped.max() <= cap + 1e-6
    torch.testing.assert_close(capped.sum(-1), torch.ones(20))


def test_a_cap_that_cannot_be_met_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cap=0.2 for 4 shares, expected more than 0.25"):
        cap_probability(torch.full((4,), 0.25), 0.2)
    assert cap_probability(torch.tensor([0.3]), 0.1).tolist() == [1.0]


def test_the_score_penalty_is_off_unless_asked_for_and_pulls_scores_together() -> None:
    logits = torch.tensor([[0.0, 2.0], [3.0, -1.0]], requires_grad=True)
    assert Objective().penalty(logits) == 0
    loss = Objective(score_penalty=0.5).penalty(logits)
    assert loss.item() == pytest.approx(0.5 * (2**2 + 4**2) / 2)
    loss.backward()
    assert (logits.grad.sign() == torch.tensor([[-1.0, 1.0], [1.0, -1.0]])).all()


def test_spread_keeps_small_differences_small() -> None:
    close, apart = torch.tensor([0.98, 0.99, 0.98, 0.99]), torch.tensor([0.0, 1.0, 0.0, 1.0])
    assert advantages(close).abs().max() == pytest.approx(float(advantages(apart).abs().max()), rel=0.02)
    assert 10 * advantages(close, 0.1).abs().max() < advantages(apart, 0.1).abs().max()

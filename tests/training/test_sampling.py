"""Online combination-space sampling: sizes, groups, seeds and what it explores."""

import pytest
import torch

from cacovid.training.diversity import most_diverse
from cacovid.training.sampling import Sampler

FRAMES, SIZE = 16, 25


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def scores() -> torch.Tensor:
    return torch.randn(FRAMES, SIZE, generator=seeded(1)) * 3


@pytest.mark.parametrize("exploration", ["ocss", "multinomial", "greedy"])
@pytest.mark.parametrize("rate", [0.01, 0.02, 0.06, 0.12, 0.4])
def test_every_rollout_keeps_as_many_of_every_frame(scores, exploration, rate) -> None:
    sampler = Sampler(exploration=exploration)
    kept = sampler.tokens(scores, rate, seeded()).view(23, FRAMES, SIZE)
    number = max(1, round(rate * SIZE))
    assert (kept.sum(2) == number).all()
    best = scores.topk(number, -1).indices
    assert kept[0].gather(1, best).all(), "the first rollout is the greedy one"
    assert torch.equal(kept, sampler.tokens(scores, rate, seeded()).view_as(kept)), "same seed, same rollouts"
    assert not torch.equal(kept, sampler.tokens(scores, rate, seeded(7)).view_as(kept))


@pytest.mark.parametrize("rate", [0.02, 0.06, 0.12])
def test_a_rollout_stays_inside_one_group_of_each_frame(scores, rate) -> None:
    sampler = Sampler()
    groups = sampler.groups(rate, SIZE)
    small, larger = divmod(SIZE, groups)
    group_of_rank = torch.cat([torch.full((small + (i < larger),), i) for i in range(groups)])
    group = torch.empty(FRAMES, SIZE, dtype=torch.long)
    group.scatter_(1, scores.argsort(dim=1, descending=True), group_of_rank.expand(FRAMES, -1))
    kept = sampler.tokens(scores, rate, seeded()).view(23, FRAMES, SIZE)[1:]
    for rollout in kept:
        for frame in range(FRAMES):
            assert len(group[frame][rollout[frame]].unique()) == 1
    drawn = {int(group[frame][rollout[frame]][0]) for rollout in kept for frame in range(FRAMES)}
    assert drawn == set(range(groups)), "no group is out of reach"


def test_no_group_is_drawn_more_often_than_its_cap() -> None:
    sampler = Sampler(token_rollouts=4000)
    certain = torch.full((1, SIZE), -20.0)
    certain[0, :3] = 20.0
    kept = sampler.tokens(certain, 0.12, seeded()).view(4000, SIZE)[1:]
    groups = sampler.groups(0.12, SIZE)
    share = kept[:, :3].any(1).float().mean().item()
    assert groups == 4
    assert share == pytest.approx(sampler.group_mass / groups, abs=0.03)
    plain = Sampler(token_rollouts=4000, exploration="multinomial").tokens(certain, 0.12, seeded())
    assert plain[1:, :3].all(), "without groups the rest is never tried"


@pytest.mark.parametrize("exploration", ["ocss", "multinomial", "greedy"])
def test_sharp_rollouts_do_not_depend_on_the_size_of_scores(scores, exploration) -> None:
    sharp = Sampler(exploration=exploration, sharpness=2.5)
    kept = sharp.tokens(scores, 0.12, seeded())
    assert torch.equal(kept, sharp.tokens(scores * 8, 0.12, seeded()))
    assert torch.equal(kept, sharp.tokens(scores / 32, 0.12, seeded())), "std 3 / 32 is above the smallest"
    told_apart = torch.zeros(FRAMES, SIZE)
    told_apart[:, :5] = 0.2
    near, far = (Sampler(exploration=exploration, sharpness=s).tokens(told_apart, 0.12, seeded()) for s in (0.0, 8.0))
    assert far.view(-1, FRAMES, SIZE)[..., :5].sum() > 1.5 * near.view(-1, FRAMES, SIZE)[..., :5].sum()
    assert sharp.tokens(told_apart * 0, 0.12, seeded()).any(), "scores that are all equal are no division by zero"


def test_frame_rollouts_keep_diverse_tokens_of_few_frames() -> None:
    features = torch.randn(FRAMES, SIZE, 8, generator=seeded(2))
    frame_scores = torch.randn(FRAMES, generator=seeded(3))
    rollouts = Sampler().draw(torch.randn(FRAMES, SIZE), frame_scores, features, 0.04, seeded())
    assert rollouts.frames.shape == (8, FRAMES)
    assert (rollouts.frames.sum(1) == 2).all()  # ceil(0.125 * 16)
    assert rollouts.frames[0].nonzero().flatten().tolist() == sorted(frame_scores.topk(2).indices.tolist())
    kept = rollouts.in_frames.view(8, FRAMES, SIZE)
    assert (kept.sum((1, 2)) == FRAMES).all()  # round(0.04 * 25) of 25, times 16 frames
    assert not kept[~rollouts.frames].any()
    for row in range(8):
        own = features[rollouts.frames[row]].flatten(0, 1)
        expected = most_diverse(own[None], FRAMES, seeded(9))[0]
        assert torch.equal(kept[row][rollouts.frames[row]].flatten(), expected)
    content = rollouts.content.view(FRAMES, SIZE)
    assert (content.sum(1) == 1).all()


def test_diversity_keeps_the_peaks_of_clusters() -> None:
    generator = seeded()
    centres = torch.eye(6)[:3] * 50
    points = centres.repeat_interleave(5, 0) + 0.1 * torch.randn(15, 6, generator=generator)
    kept = most_diverse(points[None], 3)[0].nonzero().flatten()
    assert {int(i) // 5 for i in kept} == {0, 1, 2}
    assert most_diverse(points[None], 99).all(), "asked for more than there are, all stay"


def test_one_frame_and_one_token_work() -> None:
    sampler = Sampler()
    rollouts = sampler.draw(torch.randn(1, 1), torch.randn(1), torch.randn(1, 1, 4), 0.02, seeded())
    assert rollouts.tokens.all() and rollouts.frames.all() and rollouts.in_frames.all() and rollouts.content.all()

"""Online combination-space sampling (OCSS): which kept sets a question's rollouts try.

A set of k of S tokens is one of too many combinations to explore by chance. Tokens are sorted by the policy's own
probability and split into groups; a rollout draws a group, by its capped mass, and then its tokens inside it, so
that tokens of like standing are tried together. Source: CaCoVID section 3.4 and the release's sample_token,
sample_frame and sample_content.
"""

from dataclasses import dataclass
from math import ceil
from typing import Final, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cacovid.training.capping import cap_probability
from cacovid.training.diversity import most_diverse

Exploration = Literal["ocss", "multinomial", "greedy"]

_FRAME_CAP: Final = 3.0
"""No frame is drawn with more than this times an even share."""
_SMALLEST_STD: Final = 0.05
"""Scores that differ by less than this are not told apart yet: they are not blown up to `sharpness`."""
_GROUP_CAPS: Final = (0.1, 0.9)


@dataclass(frozen=True, slots=True)
class Rollouts:
    """The kept sets of one question in one iteration: True = kept. N = T * S tokens, frame-major."""

    tokens: Bool[Tensor, "G N"]
    frames: Bool[Tensor, "H T"]
    in_frames: Bool[Tensor, "H N"]  # the tokens kept of the drawn frames
    content: Bool[Tensor, "C N"]  # by diversity alone: a reference for the logs, not for the loss


@dataclass(frozen=True, slots=True)
class Sampler:
    """Settings of the rollouts; defaults are the paper's.

    exploration: `ocss`; `multinomial` draws tokens by their probability from the whole frame; `greedy` takes the
    best ones of scores with Gumbel noise of `noise`, 0 of which is the same set in every rollout.
    """

    token_rollouts: int = 23
    frame_rollouts: int = 8
    content_rollouts: int = 1
    group_size: int = 2
    group_mass: float = 2.0  # most of the mass that a group may have, as a multiple of an even share
    frame_share: float = 0.125  # of the frames, in a frame rollout
    exploration: Exploration = "ocss"
    noise: float = 1.0
    sharpness: float = 0.0
    """Token scores are scaled to this standard deviation over the video before they are drawn by; 0 leaves them alone,
    as in the paper. With it, scores can be kept small (`Objective.score_penalty`) and rollouts still follow them."""

    def draw(
        self,
        token_scores: Float[Tensor, "T S"],
        frame_scores: Float[Tensor, " T"],
        features: Float[Tensor, "T S D"],
        rate: float,
        generator: torch.Generator,
    ) -> Rollouts:
        """All rollouts of a question. Scores are keep - drop logits; `rate`: share of a frame's tokens to keep."""
        drawn = self.frames(frame_scores, generator)
        return Rollouts(
            tokens=self.tokens(token_scores, rate, generator),
            frames=drawn,
            in_frames=self.in_frames(drawn, features, rate, generator),
            content=self.content(features, rate, generator),
        )

    def per_frame(self, rate: float, tokens_per_frame: int) -> int:
        """Tokens that a rollout keeps of a frame: round(rate * S), at least one."""
        return max(1, round(rate * tokens_per_frame))

    def groups(self, rate: float, tokens_per_frame: int) -> int:
        """Number of groups: max(int(1 / rate / group_size), 1), each with room for what is to be kept of it."""
        number = max(int(1 / rate / self.group_size), 1)
        return min(number, tokens_per_frame // self.per_frame(rate, tokens_per_frame))

    def tokens(self, scores: Float[Tensor, "T S"], rate: float, generator: torch.Generator) -> Bool[Tensor, "G N"]:
        """The token rollouts; the first keeps the best of each frame."""
        frames, size = scores.shape
        number = self.per_frame(rate, size)
        if self.sharpness:
            scores = scores * self.sharpness / scores.std().clamp_min(_SMALLEST_STD)
        q = scores.float().softmax(-1)
        best = q.topk(number, -1).indices[:, None]  # (T, 1, k)
        if self.exploration == "greedy":
            uniform = torch.rand((frames, self.token_rollouts, size), generator=generator, device=q.device)
            gumbel = -(-uniform.clamp_min(1e-20).log()).log()
            drawn = (scores[:, None].float() + self.noise * gumbel).topk(number, -1).indices
        else:
            weight = self._in_groups(q, rate, generator) if self.exploration == "ocss" else q[:, None]
            weight = weight.expand(-1, self.token_rollouts, -1).flatten(0, 1)
            # A probability of 0 in float32 could leave fewer than k tokens to draw.
            weight = weight.clamp_min(1e-12) if self.exploration == "multinomial" else weight
            drawn = torch.multinomial(weight, number, generator=generator).unflatten(0, (frames, -1))
        drawn = torch.cat([best, drawn[:, 1:]], 1)  # (T, G, k)
        kept = torch.zeros((frames, self.token_rollouts, size), dtype=torch.bool, device=q.device)
        return kept.scatter_(2, drawn, True).transpose(0, 1).flatten(1)

    def _in_groups(self, q: Float[Tensor, "T S"], rate: float, generator: torch.Generator) -> Float[Tensor, "T G S"]:
        """Probabilities of the tokens of the group that each rollout drew in each frame; 0 outside it."""
        frames, size = q.shape
        number = self.groups(rate, size)
        ordered, order = q.sort(dim=-1, descending=True, stable=True)
        # Group of each rank: sizes differ by at most one, the larger ones first.
        small, larger = divmod(size, number)
        lengths = torch.tensor([small + (i < larger) for i in range(number)])
        group_of_rank = torch.repeat_interleave(torch.arange(number), lengths).to(q.device)
        mass = q.new_zeros(frames, number).index_add_(1, group_of_rank, ordered)
        low, high = _GROUP_CAPS
        capped = cap_probability(mass, max(min(self.group_mass / number, high), low) if number > 1 else 1.0)
        drawn = torch.multinomial(capped, self.token_rollouts, replacement=True, generator=generator)  # (T, G)
        inside = drawn[..., None] == group_of_rank  # (T, G, S), by rank
        within = ordered[:, None] * inside
        within = within / within.sum(-1, keepdim=True).clamp_min(torch.finfo(q.dtype).tiny)
        within = within.clamp(1 / (2 * small), 2 / small) * inside
        within = within / within.sum(-1, keepdim=True)
        at = order[:, None].expand(-1, self.token_rollouts, -1)
        return torch.zeros_like(within).scatter_(2, at, within)

    def frames(self, scores: Float[Tensor, " T"], generator: torch.Generator) -> Bool[Tensor, "H T"]:
        """The frames of the frame rollouts; the first takes the best ones.

        Ours differs: the release caps the frames of all rollouts as one long distribution, by which the cap hardly
        ever binds; ours caps each rollout's, as the paper says.
        """
        total = len(scores)
        if self.frame_rollouts == 0:
            return torch.zeros((0, total), dtype=torch.bool, device=scores.device)
        number = max(1, ceil(self.frame_share * total))
        p = scores.float().softmax(-1)
        capped = cap_probability(p, _FRAME_CAP / total) if total > _FRAME_CAP else p
        weight = capped.clamp_min(1e-12).expand(self.frame_rollouts, -1)
        drawn = torch.multinomial(weight, number, generator=generator)
        drawn[0] = p.topk(number).indices
        return torch.zeros(weight.shape, dtype=torch.bool, device=p.device).scatter_(1, drawn, True)

    def in_frames(
        self,
        drawn: Bool[Tensor, "H T"],
        features: Float[Tensor, "T S D"],
        rate: float,
        generator: torch.Generator,
    ) -> Bool[Tensor, "H N"]:
        """The most diverse tokens of the drawn frames, as many as a token rollout keeps of the whole video."""
        frames, size = features.shape[:2]
        if len(drawn) == 0:
            return torch.zeros((0, frames * size), dtype=torch.bool, device=features.device)
        number = self.per_frame(rate, size) * frames
        at = drawn.nonzero()[:, 1].unflatten(0, (len(drawn), -1))  # (H, frames drawn)
        chosen = most_diverse(features[at].flatten(1, 2), number, generator)
        kept = torch.zeros((len(drawn), frames, size), dtype=torch.bool, device=features.device)
        where = at[..., None].expand(-1, -1, size)
        return kept.scatter_(1, where, chosen.unflatten(1, (-1, size))).flatten(1)

    def content(self, features: Float[Tensor, "T S D"], rate: float, generator: torch.Generator) -> Bool[Tensor, "C N"]:
        """The most diverse tokens of every frame."""
        if self.content_rollouts == 0:
            return torch.zeros((0, features.shape[0] * features.shape[1]), dtype=torch.bool, device=features.device)
        number = self.per_frame(rate, features.shape[1])
        return torch.stack([most_diverse(features, number, generator).flatten() for _ in range(self.content_rollouts)])

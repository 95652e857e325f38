"""One question while its iterations run: what was tried on it, what that was worth, and how hard it is."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from cacovid.policy.network import CompressionPolicy, keep_scores
from cacovid.records import VideoTokens
from cacovid.training.objective import Objective
from cacovid.training.problems import Problem
from cacovid.training.rate import AdaptiveRate
from cacovid.training.sampling import Rollouts, Sampler

Logits = tuple[Float[Tensor, "N 2"], Float[Tensor, "T 2"]]


@dataclass
class _Memory:
    """Kept sets and rewards of all iterations so far."""

    token_masks: list[Tensor] = field(default_factory=list)
    token_rewards: list[float] = field(default_factory=list)
    frame_masks: list[Tensor] = field(default_factory=list)
    frame_rewards: list[float] = field(default_factory=list)


class Question:
    """The state of one question: first logits, memory and rate. `remember=False` forgets earlier iterations."""

    def __init__(self, problem: Problem, prompt: str, video: VideoTokens, rate: AdaptiveRate, remember: bool) -> None:
        self.problem, self.prompt, self.video, self._adapt = problem, prompt, video, rate
        self.remember = remember
        self.rate = rate.start
        # Inference tensors cannot take part in a backward pass; copies can.
        self.embeds = video.embeds.clone()[None]
        self.old: Logits | None = None
        self.memory = _Memory()
        self.rollouts: Rollouts | None = None

    def logits(self, policy: CompressionPolicy) -> Logits:
        """The policy's logits now; those of the first iteration are kept."""
        tokens, frames = policy(self.embeds, self.video.span, self.video.frames, self.video.axes)
        if self.old is None:
            self.old = (tokens[0].detach(), frames[0].detach())
        return tokens[0], frames[0]

    def explore(self, sampler: Sampler, generator: torch.Generator) -> Tensor:
        """Draw this iteration's kept sets by the first logits; all of them, (G + H + C, N)."""
        assert self.old is not None, "logits come first"
        tokens, frames = (keep_scores(logits) for logits in self.old)
        features = self.video.features
        self.rollouts = sampler.draw(tokens.unflatten(0, features.shape[:2]), frames, features, self.rate, generator)
        return torch.cat([self.rollouts.tokens, self.rollouts.in_frames, self.rollouts.content])

    def learn(self, worth: list[float]) -> dict[str, float]:
        """Take in the rewards of `explore`'s sets, in its order; their means for the log."""
        assert self.rollouts is not None, "explore comes first"
        tokens, frames = len(self.rollouts.tokens), len(self.rollouts.frames)
        if not self.remember:
            self.memory = _Memory()
        self.memory.token_masks.append(self.rollouts.tokens)
        self.memory.token_rewards += worth[:tokens]
        self.memory.frame_masks.append(self.rollouts.frames)
        self.memory.frame_rewards += worth[tokens : tokens + frames]
        parts = {
            "token": worth[:tokens],
            "greedy": worth[:1],
            "frame": worth[tokens : tokens + frames],
            "content": worth[tokens + frames :],
        }
        self.rate = self._adapt.after(self.rate, _mean(self.memory.token_rewards))
        return {name: _mean(part) for name, part in parts.items() if part}

    def loss(self, logits: Logits, objective: Objective) -> Float[Tensor, ""]:
        """Token and frame loss over what is remembered."""
        assert self.old is not None
        total = logits[0].new_zeros(())
        for loss, now, old, masks, rewards in (
            (objective.tokens, logits[0], self.old[0], self.memory.token_masks, self.memory.token_rewards),
            (objective.frames, logits[1], self.old[1], self.memory.frame_masks, self.memory.frame_rewards),
        ):
            if not rewards:
                continue
            worth = torch.tensor(rewards, dtype=now.dtype, device=now.device)
            total = total + loss(now, old, torch.cat(masks), worth) + objective.penalty(now)
        return total


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)

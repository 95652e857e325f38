"""The clipped, group-relative objective over kept sets.

Source: CaCoVID section 3.3 and the release (grpo_trainer.py: compute_loss, _get_per_token_logps).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_SMALL = 1e-7


@dataclass(frozen=True, slots=True)
class Objective:
    """Settings of the objective. `balanced` off weighs every token alike (an ablation)."""

    clip_low: float = 0.2
    clip_high: float = 0.28
    balanced: bool = True
    spread: float = 1e-4
    """Added to the standard deviation of a group's rewards before they are divided by it. So little of it lets rewards
    that differ by hundredths, such as probabilities, count as much as right against wrong."""
    score_penalty: float = 0.0
    """Weight of the mean squared score. Not in the paper: the objective rewards the order of scores, whose size then
    grows without end and ends in noise or NaN at high learning rates."""

    def tokens(
        self,
        logits: Float[Tensor, "n 2"],
        old: Float[Tensor, "n 2"],
        masks: Int[Tensor, "G n"],
        rewards: Float[Tensor, " G"],
    ) -> Float[Tensor, ""]:
        """Loss of the token rollouts of one question; masks are 1 where a rollout kept a token.

        A rollout keeps few tokens, so its kept ones weigh 1 - m and its dropped ones m, m its kept share.
        """
        each = self._each(logits, old, masks, rewards)
        if not self.balanced:
            return each.mean()
        mask = masks.to(each.dtype)
        share = mask.mean(1, keepdim=True)
        weight = mask * (1 - share) + (1 - mask) * share
        return ((each * weight).sum(1) / (weight.sum(1) + _SMALL)).mean()

    def frames(
        self,
        logits: Float[Tensor, "T 2"],
        old: Float[Tensor, "T 2"],
        masks: Int[Tensor, "G T"],
        rewards: Float[Tensor, " G"],
    ) -> Float[Tensor, ""]:
        """Loss of the frame rollouts of one question: the plain mean."""
        return self._each(logits, old, masks, rewards).mean()

    def penalty(self, logits: Float[Tensor, "n 2"]) -> Float[Tensor, ""]:
        """What large scores (keep - drop) cost."""
        return self.score_penalty * (logits[:, 1] - logits[:, 0]).square().mean()

    def _each(self, logits: Tensor, old: Tensor, masks: Tensor, rewards: Tensor) -> Float[Tensor, "G n"]:
        ratio = (log_probability(logits, masks) - log_probability(old, masks).detach()).exp()
        advantage = advantages(rewards, self.spread)[:, None]
        clipped = ratio.clamp(1 - self.clip_low, 1 + self.clip_high)
        return -torch.minimum(ratio * advantage, clipped * advantage)


def log_probability(logits: Float[Tensor, "n 2"], masks: Int[Tensor, "G n"]) -> Float[Tensor, "G n"]:
    """log pi of each decision of each rollout; column 1 of the logits is "keep"."""
    return logits.log_softmax(-1).T[masks.long(), torch.arange(masks.shape[1], device=masks.device)]


def advantages(rewards: Float[Tensor, " G"], spread: float = 1e-4) -> Float[Tensor, " G"]:
    """Rewards relative to their group: (R - mean) / (unbiased std + spread); zeros for a group of one or of equals."""
    if len(rewards) < 2:
        return torch.zeros_like(rewards)
    return (rewards - rewards.mean()) / (rewards.std() + spread)

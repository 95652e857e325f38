"""The adaptive rate: questions that are easy with few tokens get fewer, hard ones get more."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AdaptiveRate:
    """How the share of tokens that rollouts keep follows a question's rewards.

    Source: the release's trainer: after an iteration with a mean token reward of at least `easy` the rate halves, not
    under `low`; at `hard` or less it doubles, not over `high`. `adaptive=False` keeps it (an ablation).
    """

    start: float = 0.02
    low: float = 0.01
    high: float = 0.12
    easy: float = 0.875
    hard: float = 0.125
    adaptive: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.start <= self.high <= 1:
            raise ValueError(
                f"rates low={self.low}, start={self.start}, high={self.high}; expected 0 < low <= start <= high <= 1"
            )

    def after(self, rate: float, mean_reward: float) -> float:
        """The next iteration's rate."""
        if not self.adaptive:
            return rate
        if mean_reward >= self.easy:
            return max(rate / 2, self.low)
        if mean_reward <= self.hard:
            return min(rate * 2, self.high)
        return rate

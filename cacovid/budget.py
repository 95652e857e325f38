"""Budget: from a retention ratio to tokens, and the audit of what a sample really spent."""

from dataclasses import asdict, dataclass
from typing import Literal

from cacovid.errors import BudgetError

BudgetMode = Literal["nominal", "layer_average", "flops"]
"""What r means: what it does in the method's own paper, the mean over the LLM's layers, or the FLOPs."""

Measure = Literal["kept", "entering", "layer_average", "flops"]
"""A figure in video tokens: after the last cut, before the first layer, the mean over the LLM's layers, or as many
as an LLM whose video was cut to them before its first layer could compute for the same FLOPs, compressor included."""


def check_retention(retention: float) -> None:
    """Raise BudgetError unless 0 < retention <= 1."""
    if not 0 < retention <= 1:
        raise BudgetError(f"retention={retention}, expected 0 < retention <= 1: the share of video tokens to KEEP")


def tokens_to_keep(retention: float, video_tokens: int) -> int:
    """round(r * N), half to even: the one place where a ratio becomes a count.

    Raises BudgetError where that is below one token.

    >>> tokens_to_keep(0.25, 32 * 196), tokens_to_keep(0.15, 32 * 196)
    (1568, 941)
    """
    budget = round(retention * video_tokens)
    if budget < 1:
        raise BudgetError(
            f"retention={retention} of {video_tokens} video tokens is a budget below one token; "
            f"use retention >= {1 / video_tokens:.4g} or more frames"
        )
    return budget


@dataclass(frozen=True, slots=True)
class Flops:
    """Floating-point operations of one sample (one multiply-add = 2), from the real architecture."""

    vision: int  # tower and projector, all frames
    compressor: int  # the method itself
    prefill: int  # LLM over the prompt, layer by layer as pruned, and the LM head on the last row
    decode: int  # all decoded tokens after the first

    @property
    def total(self) -> int:
        return self.vision + self.compressor + self.prefill + self.decode


@dataclass(frozen=True, slots=True)
class Spent:
    """What one sample really spent: the budget audit. Counts are video tokens; the newline is none."""

    video_tokens: int  # N, before compression
    asked: int  # round(r N)
    measure: Measure  # the figure that `asked` is compared with
    slack: float  # tokens by which it may be missed
    lenient: bool  # a miss is marked, not refused: the count hangs on the video's content, or was solved
    layers: tuple[int, ...]  # video tokens that each LLM layer computed at prefill; layers[0] entered the LLM
    kept: int  # video tokens after the last cut, which may be one inside the last layer
    decode_visible: float  # KV entries of video tokens read at decode, mean over layers and steps
    equivalent: float  # the figure `flops`, see Measure
    flops: Flops
    flops_full: Flops  # the same sample uncompressed: same prompt, same number of decoded tokens

    @property
    def entering(self) -> int:
        return self.layers[0]

    @property
    def retention(self) -> float:
        """Realised share of video tokens after the last cut."""
        return self.kept / self.video_tokens

    @property
    def layer_average(self) -> float:
        """Share of video tokens, averaged over the LLM's layers: the papers' "equivalent retention ratio"."""
        return sum(self.layers) / len(self.layers) / self.video_tokens

    @property
    def flops_ratio(self) -> float:
        """FLOPs of LLM and compressor against the uncompressed sample; the vision tower is the same in both."""
        ours, full = self.flops, self.flops_full
        return (ours.compressor + ours.prefill + ours.decode) / (full.prefill + full.decode)

    @property
    def realised(self) -> float:
        """The figure that `asked` is compared with."""
        figures = {
            "kept": self.kept,
            "entering": self.entering,
            "layer_average": self.layer_average * self.video_tokens,
            "flops": self.equivalent,
        }
        return figures[self.measure]

    @property
    def missed(self) -> bool:
        """Whether the realised budget is another one than asked; fractions round to the nearest token."""
        return abs(self.realised - self.asked) > self.slack + (0 if self.measure in ("kept", "entering") else 0.5)

    def check(self, method: str) -> None:
        """Raise BudgetError if the realised budget is not the asked one, unless a miss is only marked."""
        if self.missed and not self.lenient:
            raise BudgetError(
                f"{method} kept {self.realised:g} of {self.video_tokens} video tokens ({self.measure}), asked for "
                f"{self.asked} (allowed difference {self.slack:g}); the run's numbers would not be at the stated "
                f"retention"
            )

    def to_json(self) -> dict[str, object]:
        """Plain data for the samples file: the counts and the derived shares."""
        return {
            **asdict(self),
            "entering": self.entering,
            "realised": self.realised,
            "missed": self.missed,
            "retention": self.retention,
            "layer_average": self.layer_average,
            "flops_ratio": self.flops_ratio,
        }

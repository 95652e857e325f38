"""Budget: from a retention ratio to tokens, and the audit of what a sample really spent."""

from dataclasses import asdict, dataclass

from cacovid.errors import BudgetError


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
    asked: int  # budget: tokens to keep
    slack: int  # tokens by which the method may miss it by construction
    layers: tuple[int, ...]  # video tokens that each LLM layer computed at prefill; layers[0] entered the LLM
    decode_visible: float  # KV entries of video tokens read at decode, mean over layers and steps
    flops: Flops
    flops_full: Flops  # the same sample uncompressed: same prompt, same number of decoded tokens

    @property
    def entering(self) -> int:
        return self.layers[0]

    @property
    def kept(self) -> int:
        """Video tokens after the last cut: what `asked` is compared with."""
        return self.layers[-1]

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

    def check(self, method: str) -> None:
        """Raise BudgetError if the realised budget is not the asked one (within the method's slack)."""
        if abs(self.kept - self.asked) > self.slack:
            raise BudgetError(
                f"{method} kept {self.kept} of {self.video_tokens} video tokens, asked for {self.asked} "
                f"(allowed difference {self.slack}); the run's numbers would not be at the stated retention"
            )

    def to_json(self) -> dict[str, object]:
        """Plain data for the samples file: the counts and the derived shares."""
        return {
            **asdict(self),
            "entering": self.entering,
            "kept": self.kept,
            "retention": self.retention,
            "layer_average": self.layer_average,
            "flops_ratio": self.flops_ratio,
        }

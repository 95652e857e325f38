"""CaCoVID as a method of the suite: a trained policy picks the tokens that contribute to right answers."""

from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from hashlib import sha256
from typing import Any, ClassVar

import torch
from jaxtyping import Int64
from torch import Tensor

from cacovid.errors import MethodError
from cacovid.flops import DecoderShape
from cacovid.method import Method, Positions
from cacovid.policy.checkpoint import Choice, load_policy
from cacovid.policy.network import CompressionPolicy, Habit
from cacovid.policy.select import Quota, positions_of, select
from cacovid.records import Compressed, VideoTokens


@dataclass(frozen=True, kw_only=True)
class CaCoVID(Method):
    """Keep the tokens that a trained policy expects to contribute to the right answer.

    The policy reads the LLM's whole input, scores tokens and frames, and the frames share out the part of the
    budget that goes by importance; the rest is evenly spaced over what is left. Kept tokens are untouched, at
    their original positions.

    Ours differs: the budget is round(r N), as for every method here, where the release keeps floor(r N); and a
    frame's cap is at most the whole frame, above which the release keeps too few tokens. At r = 1 the policy is
    not run, since all tokens stay.
    """

    policy: str = ""  # folder, hub id or `testbed`; there is no default, since a policy belongs to one LLM
    # None for these two: as the policy was validated; a released one as the release does, 0.5 and 1.5.
    importance_share: float | None = None  # a: share of the budget that goes by importance
    frame_cap: float | None = None  # largest share of a frame that may be kept by importance, as a multiple of r
    attention: Choice = "auto"  # what the policy may see; `auto`: as it was trained

    source: ClassVar[str] = "CaCoVID (arXiv 2602.01649, github.com/LivingFutureLab/CaCoVID)"
    positions: ClassVar[Positions] = "original"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.importance_share is not None and not 0 <= self.importance_share <= 1:
            raise MethodError(f"importance_share={self.importance_share}, expected 0 <= importance_share <= 1")
        if self.frame_cap is not None and self.frame_cap <= 0:
            raise MethodError(f"frame_cap={self.frame_cap}, expected a multiple of r above 0 (1.5 in the paper's code)")

    def identity(self) -> dict[str, Any]:
        if not self.policy:
            return {}
        fingerprint, habit = _about(self.policy)
        return {"policy_sha256": fingerprint, **asdict(self._habit(habit))}

    def _habit(self, own: Habit) -> Habit:
        """The settings of the selection: as given, else the policy's own."""
        given = {name: getattr(self, name) for name in Habit.__slots__ if getattr(self, name) is not None}
        return replace(own, **given)

    def compress(self, video: VideoTokens, budget: int) -> Compressed:
        if budget >= len(video):
            return super().compress(video, budget)
        policy = self._policy(video)
        if policy.width != (width := video.flat.shape[1]):
            raise MethodError(
                f"policy={self.policy!r} was made for an LLM of width {policy.width}, this one has width {width}; "
                f"give a policy that was trained for it"
            )
        if policy.counts_axes != (video.axes is not None):
            wanted, got = (
                ("three axes", "one number a row") if policy.counts_axes else ("one number a row", "three axes")
            )
            raise MethodError(
                f"policy={self.policy!r} was made for a {policy.text_config.model_type} with positions of {wanted}, "
                f"this LLM has {got}; give a policy that was trained for it"
            )
        quota = quota_of(video, budget, self.retention, self._habit(policy.habit))
        return Compressed.keep(video, choose(policy, video, quota))

    def _policy(self, video: VideoTokens) -> CompressionPolicy:
        """The policy, where the video's tokens are."""
        if not self.policy:
            raise MethodError("cacovid needs policy=..., a folder or hub id of a policy that was trained for this LLM")
        return _loaded(self.policy, self.attention, video.features.device, video.features.dtype)

    def compressor_flops(self, video: VideoTokens, budget: int) -> int:
        if budget >= len(video):
            return 0
        policy = self._policy(video)
        heads = (
            len(video) * _products(policy.token_compress),
            video.frames * _products(policy.frame_compress),
        )
        return DecoderShape.from_config(policy.text_config).layer(video.rows, video.rows) + sum(heads)


def quota_of(video: VideoTokens, budget: int, retention: float, habit: Habit) -> Quota:
    """How a budget is split between importance and even spacing, and between frames: at most a whole frame is kept."""
    shape = (video.frames, video.tokens_per_frame)
    return Quota.of(retention, *shape, habit.importance_share, min(1.0, habit.frame_cap * retention), keep=budget)


def choose(policy: CompressionPolicy, video: VideoTokens, quota: Quota) -> Int64[Tensor, " K"]:
    """The flat positions that a policy keeps of a video, ascending."""
    token_logits, frame_logits = policy(video.embeds[None], video.span, video.frames, video.axes)
    return positions_of(select(token_logits, frame_logits, quota), quota.keep)[0]


def _products(head: torch.nn.Module) -> int:
    """FLOPs of one row through a head."""
    return 2 * sum(weight.numel() for weight in head.parameters() if weight.ndim == 2)


@lru_cache(maxsize=4)
def _loaded(source: str, attention: Choice, device: torch.device, dtype: torch.dtype) -> CompressionPolicy:
    """A policy where the video's tokens are; a run asks for the same one at every sample."""
    return load_policy(source, attention).to_backbone(torch.empty(0, device=device, dtype=dtype))


@lru_cache(maxsize=4)
def _about(source: str) -> tuple[str, Habit]:
    """Hash of a policy's weights (another policy in the same folder is another run) and how it selects."""
    policy, total = load_policy(source), sha256()
    for name, weight in sorted(policy.state_dict().items()):
        total.update(name.encode() + b"\0" + weight.numpy().tobytes())
    return total.hexdigest(), policy.habit

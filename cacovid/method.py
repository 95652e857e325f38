"""The method contract: one frozen dataclass, up to three hooks, each optional.

`compress` runs before the LLM, `prune_layer` inside it at prefill, `visible` at every decode step. Score-only
methods subclass `ScoreMethod` and write `score` alone.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, final, get_args, get_origin, get_type_hints

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cacovid.budget import Measure, check_retention, tokens_to_keep
from cacovid.errors import MethodError
from cacovid.flops import DecoderShape
from cacovid.records import Compressed, LayerCut, Need, VideoTokens
from cacovid.select import top_k

if TYPE_CHECKING:
    from cacovid.state import DecodeState, PrefillState

Stage = Literal["pre-LLM", "in-LLM", "decode"]
Positions = Literal["original", "compact"]

KINDS: dict[Any, type] = {int: Integral, float: Real, bool: bool, str: str}  # of fields; an int is a Real


@dataclass(frozen=True, kw_only=True)
class Method(ABC):  # noqa: B024  every hook is optional: `full` has none
    """Base of all methods. Fields of a subclass are the hyper-parameters of its paper.

    The class docstring's first line is the method's one-line description; `source` names paper and official
    code. A hook that is not overridden does nothing.
    """

    retention: float = 1.0  # r: share of the video tokens kept, 0 < r <= 1

    source: ClassVar[str] = ""  # paper and official repository
    positions: ClassVar[Positions] = "compact"
    """Position ids of the tokens kept by `compress`: `original` (gaps stay, decoding goes on from the original
    length) or `compact` (renumbered without gaps). In-LLM cuts always keep the positions tokens already have."""
    means: ClassVar[Measure] = "kept"
    """What r counts in the method's own paper; the audit compares this figure with round(r N)."""
    adaptive: ClassVar[bool] = False
    """True where the count hangs on the video's content: a video that misses its budget is marked, not refused."""
    repeats: ClassVar[bool] = False
    """True where two tokens that enter the LLM may stand for the same flat position."""
    ascending: ClassVar[bool] = True
    """False where the authors' order of the tokens that enter the LLM is not that of their flat positions."""

    def __post_init__(self) -> None:
        self._check_fields()
        check_retention(self.retention)

    def _check_fields(self) -> None:
        """Refuse a field value of the wrong kind: command lines and sweeps bring plain data."""
        hints = get_type_hints(type(self))
        for name in (f.name for f in fields(self)):
            hint, value = hints[name], getattr(self, name)
            if get_origin(hint) is Literal and value not in get_args(hint):
                allowed = ", ".join(map(repr, get_args(hint)))
                raise MethodError(f"{name}={value!r}, expected one of {allowed}")
            if hint in KINDS and (not isinstance(value, KINDS[hint]) or isinstance(value, bool) != (hint is bool)):
                raise MethodError(f"{name}={value!r} is a {type(value).__name__}, expected {hint.__name__}")

    @property
    def needs(self) -> frozenset[Need]:
        """What the vision tower must record for this method; see `VideoTokens`."""
        return frozenset()

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Where this method acts: the hooks that its class overrides."""
        hooks: dict[Stage, tuple[str, ...]] = {
            "pre-LLM": ("compress",),
            "in-LLM": ("prune_layer", "prune_after_attention"),
            "decode": ("visible",),
        }
        return tuple(stage for stage, names in hooks.items() if any(map(self.acts, names)))

    def acts(self, hook: str) -> bool:
        """Whether the class overrides this hook."""
        return getattr(type(self), hook) is not getattr(Method, hook)

    def identity(self) -> dict[str, Any]:
        """What besides the fields can change this method's numbers, such as the hash of weights that it loads.

        A field's name replaces its value where that says less than what was done, such as "as the checkpoint says".
        """
        return {}

    def budget(self, video_tokens: int) -> int:
        """Tokens to keep of `video_tokens`: computed once a video, the same for every method."""
        return tokens_to_keep(self.retention, video_tokens)

    def at(self, retention: float) -> Self:
        """The same method at another retention ratio."""
        return replace(self, retention=retention)

    def slack(self, video: VideoTokens) -> int:
        """Tokens by which this method may miss its budget by construction (0 = it meets it exactly)."""
        return 0

    def schedule(self, video: VideoTokens, layers: int) -> list[int]:
        """Video tokens that each of the LLM's `layers` will compute at prefill; see `cacovid.solve`.

        The default is that of a method which acts before the LLM alone. At decode nothing is evicted.
        Raises MethodError where a method that acts inside the LLM does not override it.
        """
        if "in-LLM" in self.stages:
            raise MethodError(
                f"{type(self).__name__} acts inside the LLM but does not say how many tokens each layer computes; "
                f"write its `schedule`, or use budget=nominal"
            )
        return [self.budget(len(video))] * layers

    def fed(self, schedule: list[int]) -> list[int]:
        """Of the `schedule`'s video tokens, those that go through each layer's feed-forward part; see
        `prune_after_attention`."""
        return schedule

    def compress(self, video: VideoTokens, budget: int) -> Compressed:
        """Before the LLM: choose or merge down to `budget` tokens. The default passes all of them."""
        return Compressed.keep(video, torch.arange(len(video), device=video.features.device))

    def prune_layer(self, layer: int, state: "PrefillState", budget: int) -> LayerCut | None:
        """Before decoder layer `layer` (0-based) at prefill: which video tokens go on; None = all."""
        return None

    def prune_after_attention(self, layer: int, state: "PrefillState", budget: int) -> LayerCut | None:
        """Inside decoder layer `layer` at prefill, between its attention and its feed-forward part; None = all."""
        return None

    def visible(self, layer: int, step: int, state: "DecodeState", budget: int) -> Int64[Tensor, " K"] | None:
        """Before decoder layer `layer` of decode step `step` (0 = the first generated token fed back): which
        cached video tokens this layer reads; None = all. Nothing is evicted: a token may return later."""
        return None

    def lookup_flops(self, video: VideoTokens, shape: DecoderShape) -> int:
        """What the look-ups through `state.attention` at prefill will cost; the audit counts what they did cost."""
        return 0

    def compressor_flops(self, video: VideoTokens, budget: int) -> int:
        """Floating-point operations (one multiply-add = 2, matrix products) of the method's own arithmetic.

        What it declares in `needs` and looks up through `state.attention` is counted where it happens.
        """
        return 0


@dataclass(frozen=True, kw_only=True)
class ScoreMethod(Method):
    """A pre-LLM method that is one score a token: the highest `budget` scores of the whole video stay."""

    @abstractmethod
    def score(self, video: VideoTokens) -> Float[Tensor, "F S"]:
        """Importance of each token, higher = keep; float32."""

    @final
    def compress(self, video: VideoTokens, budget: int) -> Compressed:
        scores = self.score(video)
        if scores.numel() != len(video):
            raise ValueError(
                f"{type(self).__name__}.score returned shape {tuple(scores.shape)}, expected one score for each "
                f"of {video.frames} x {video.tokens_per_frame} tokens"
            )
        return Compressed.keep(video, top_k(scores, budget))

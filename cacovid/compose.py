"""`a+b`: a pre-LLM method followed by an in-LLM one, with the budget split stated."""

from dataclasses import dataclass, replace
from numbers import Real
from typing import ClassVar

from jaxtyping import Int64
from torch import Tensor

from cacovid.budget import check_retention
from cacovid.errors import MethodError
from cacovid.method import Method, Positions, Stage
from cacovid.records import Compressed, LayerCut, Need, VideoTokens
from cacovid.state import DecodeState, PrefillState


@dataclass(frozen=True, kw_only=True)
class Composed(Method):
    """First method before the LLM, second one inside it or at decode.

    The first keeps r ** share of the video, the second brings that down to r in all: share=0.5 prunes by the
    same factor twice, share=1 leaves everything to the first.
    """

    first: Method
    second: Method
    share: float = 0.5

    source: ClassVar[str] = "composition of two methods"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.share <= 1:
            raise MethodError(f"share={self.share}, expected 0 <= share <= 1: the first keeps retention ** share")
        if self.second.means != "kept":
            raise MethodError(
                f"cannot compose with {type(self.second).__name__}: its r is a {self.second.means} of all N tokens, "
                f"and after another method there are fewer; compose with one whose r counts what is kept"
            )
        if self.first.stages != ("pre-LLM",) or "pre-LLM" in self.second.stages:
            raise MethodError(
                f"cannot compose {type(self.first).__name__} {self.first.stages} with "
                f"{type(self.second).__name__} {self.second.stages}: the first must act before the LLM alone, "
                f"the second inside it or at decode"
            )

    @property
    def positions(self) -> Positions:  # type: ignore[override]
        return self.first.positions

    @property
    def ascending(self) -> bool:  # type: ignore[override]
        return self.first.ascending

    @property
    def repeats(self) -> bool:  # type: ignore[override]
        return self.first.repeats

    @property
    def adaptive(self) -> bool:  # type: ignore[override]
        return self.first.adaptive or self.second.adaptive

    @property
    def needs(self) -> frozenset[Need]:
        return self.first.needs | self.second.needs

    def acts(self, hook: str) -> bool:
        return self.first.acts(hook) if hook == "compress" else self.second.acts(hook)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (*self.first.stages, *self.second.stages)

    def at(self, retention: float) -> "Composed":
        first = self.first.at(retention**self.share)
        return replace(self, retention=retention, first=first, second=self.second.at(retention))

    def schedule(self, video: VideoTokens, layers: int) -> list[int]:
        pairs = zip(self.first.schedule(video, layers), self.second.schedule(video, layers), strict=True)
        return [min(pair) for pair in pairs]

    def slack(self, video: VideoTokens) -> int:
        entering = self.first.budget(len(video)) - self.first.slack(video)  # at the least
        return self.second.slack(video) + max(0, self.budget(len(video)) - entering)

    def compress(self, video: VideoTokens, budget: int) -> Compressed:
        return self.first.compress(video, self.first.budget(len(video)))

    def prune_layer(self, layer: int, state: PrefillState, budget: int) -> LayerCut | None:
        return self.second.prune_layer(layer, state, budget)

    def prune_after_attention(self, layer: int, state: PrefillState, budget: int) -> LayerCut | None:
        return self.second.prune_after_attention(layer, state, budget)

    def visible(self, layer: int, step: int, state: DecodeState, budget: int) -> Int64[Tensor, " K"] | None:
        return self.second.visible(layer, step, state, budget)

    def compressor_flops(self, video: VideoTokens, budget: int) -> int:
        first = self.first.compressor_flops(video, self.first.budget(len(video)))
        return first + self.second.compressor_flops(video, budget)


def compose(name: str, settings: dict[str, object]) -> Composed:
    """Build `a+b`. Fields of the parts are given as `a.field=...`; `retention` and `share` belong to the whole.

    Raises MethodError for a name with other than two parts, an unknown field, or parts that do not compose.
    """
    from cacovid.registry import build_method

    parts = name.split("+")
    if len(parts) != 2:
        raise MethodError(f"{name!r} has {len(parts)} parts, expected two: `pre_llm_method+in_llm_method`")
    own: dict[str, dict[str, object]] = {part: {} for part in parts}
    retention, share = 1.0, 0.5
    for key, value in settings.items():
        owner, dot, field = key.partition(".")
        if dot and owner in own:
            own[owner][field] = value
        elif key == "retention":
            retention = _number(key, value)
            check_retention(retention)  # before it is raised to a power: a negative one turns complex
        elif key == "share":
            share = _number(key, value)
        else:
            raise MethodError(
                f"{name} has no field {key!r}; its fields: retention, share, and {parts[0]}.* or {parts[1]}.*"
            )
    first, second = (
        build_method(part, **{"retention": r, **own[part]})
        for part, r in zip(parts, (retention**share, retention), strict=True)
    )
    return Composed(retention=retention, first=first, second=second, share=share)


def _number(field: str, value: object) -> float:
    if not isinstance(value, Real):
        raise MethodError(f"{field}={value!r} is a {type(value).__name__}, expected float")
    return float(value)

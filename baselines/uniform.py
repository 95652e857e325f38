"""Evenly spaced tokens, blind to content and question."""

from dataclasses import dataclass
from typing import ClassVar

from cacovid.method import Method
from cacovid.records import Compressed, VideoTokens
from cacovid.select import evenly_spaced


@dataclass(frozen=True, kw_only=True)
class Uniform(Method):
    """Keep tokens at even steps through the flat, frame-major sequence.

    K tokens at round(linspace(0, N - 1, K)). Where the step divides S, the same columns are kept in every frame.
    """

    source: ClassVar[str] = "no paper: reference point of every table"

    def compress(self, video: VideoTokens, budget: int) -> Compressed:
        return Compressed.keep(video, evenly_spaced(len(video), budget).to(video.features.device))

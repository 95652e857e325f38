"""What a store holds of one video, and what every kind of store offers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from cacovid.video import Clip

FEATURES = "features"
"""The part that every entry has; the others are named like the needs that they answer."""


@dataclass(frozen=True, slots=True)
class ClipFacts:
    """What is known of a clip besides its pixels: enough for a sample's record."""

    sha256: str  # of the file's bytes, hex
    indices: tuple[int, ...]  # rising frame indices in presentation order
    total_frames: int
    fps: float  # 0.0 unknown
    decoder: str

    @classmethod
    def of(cls, clip: Clip) -> Self:
        """The facts of a decoded clip."""
        return cls(clip.sha256, clip.indices, clip.total_frames, clip.fps, clip.backend)

    @property
    def rate(self) -> float:
        """Frames read for each second of the video, as `Clip.rate`."""
        return len(self.indices) / self.total_frames * self.fps

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Self:
        """Inverse of `dataclasses.asdict`, after a round trip through JSON."""
        return cls(**{**row, "indices": tuple(row["indices"])})


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One encoded video. Tensors that a store returns are its own, on the CPU: copy, never write into them."""

    facts: ClipFacts
    parts: Mapping[str, Tensor]  # "features", and those of `cacovid.records.NEEDS` that were captured


@dataclass(slots=True)
class Counters:
    """What a process really did for its videos."""

    decoded: int = 0  # files read by a decoder
    encoded: int = 0  # runs of the vision tower, one a video
    hits: int = 0  # videos taken from the store
    dropped: int = 0  # stored parts that were damaged
    evicted: int = 0  # stored parts removed to stay below the size limit


class Store(ABC):
    """Entries by key. Parts come and go alone: a later method adds what the earlier ones did not need."""

    counters: Counters

    @abstractmethod
    def get(self, key: str, parts: frozenset[str]) -> Entry | None:
        """The entry with "features" and exactly these parts besides; None unless all of them are here."""

    @abstractmethod
    def has(self, key: str, parts: frozenset[str]) -> bool:
        """Whether `get` would find the entry, as far as a look tells that reads nothing; from any thread."""

    @abstractmethod
    def put(self, key: str, entry: Entry) -> None:
        """Keep what is not here yet."""

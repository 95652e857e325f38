"""A video on its way to the LLM: taken from the store, or decoded and encoded."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cacovid.backbones import Backbone, Encoded
from cacovid.clock import StageClock
from cacovid.lmms.clips import ClipCache, stamp
from cacovid.records import Need
from cacovid.runs.digest import known_sha256
from cacovid.store import FEATURES, ClipFacts, Counters, EncoderIdentity, Entry, Store


@dataclass(frozen=True, slots=True, eq=False)
class EncodedClip:
    """An encoded video file, and what the record says of it."""

    encoded: Encoded
    facts: ClipFacts
    stamp: tuple[int, int]  # as `clips.stamp`
    seconds: dict[str, float]
    """"store" if it was stored, else "read" and "vision". "read" is what its reader took, "vision" processor and tower.
    A video that was read ahead has been through the processor as well, and also has "waited", what the answering waited
    for it: less than both took, but for a busy reader's other files, by what ran at the same time as the answers
    before."""


@dataclass(frozen=True, slots=True, eq=False)
class ClipEncoder:
    """Encodes video files on a backbone. Without a store every call runs the vision tower."""

    backbone: Backbone
    clips: ClipCache
    identity: EncoderIdentity
    counters: Counters
    store: Store | None = None
    needs: frozenset[Need] = frozenset()  # stored besides, for methods that come later

    def encode(self, path: str, needs: frozenset[Need]) -> EncodedClip:
        """The file as it is now, with exactly what `needs` names. Raises VideoError."""
        return self._stored(path, needs) or self._fresh(path, needs)

    def prefetch(self, paths: Iterable[str], needs: frozenset[Need]) -> None:
        """As `ClipCache.prefetch`, for `encode` with these needs."""
        self.clips.prefetch(paths, partial(self._is_stored, needs=needs))

    def _is_stored(self, path: str, needs: frozenset[Need]) -> bool:
        if self.store is None:
            return False
        try:
            return self.store.has(self.identity.key(known_sha256(path)), needs)
        except OSError:
            return False

    def _stored(self, path: str, needs: frozenset[Need]) -> EncodedClip | None:
        found = stamp(path)
        if self.store is None or found is None:  # without the file the reader says so
            return None
        device = self.backbone.device
        clock = StageClock(device)
        with clock.stage("store"):
            try:
                key = self.identity.key(known_sha256(path))
            except OSError:  # the reader finds it, too, and says what is wrong
                return None
            entry = self.store.get(key, needs)
            if entry is None:
                return None
            parts = {name: _on(device, part) for name, part in entry.parts.items()}
        self.counters.hits += 1
        return EncodedClip(Encoded(parts.pop(FEATURES), parts), entry.facts, found, clock.seconds)

    def _fresh(self, path: str, needs: frozenset[Need]) -> EncodedClip:
        read = self.clips.read(path)
        clock = StageClock(self.backbone.device)
        with clock.stage("vision"):
            pixels = self.backbone.preprocess(read.clip.frames) if read.pixels is None else read.pixels
            made = self.backbone.encode_pixels(pixels, needs if self.store is None else needs | self.needs)
        self.counters.encoded += 1
        facts = ClipFacts.of(read.clip)
        if self.store is not None:
            # By the hash that the reader saw: the file may have changed since it was looked up.
            key = self.identity.key(facts.sha256)
            self.store.put(key, Entry(facts, {FEATURES: made.features, **made.captured}))
        asked = Encoded(made.features, {name: part for name, part in made.captured.items() if name in needs})
        seconds = {"read": read.seconds} | ({} if read.waited is None else {"waited": read.waited})
        return EncodedClip(asked, facts, read.stamp, seconds | clock.seconds)


def _on(device: torch.device, part: Tensor) -> Tensor:
    """A copy on the device; to CUDA through pinned memory, all parts at once: the stage's clock waits for them.

    A copy on a CPU, too: kernels may round by the alignment of memory, and no method can harm the next.
    """
    if device.type == "cuda":
        return part.pin_memory().to(device, non_blocking=True)
    return part.to(device, copy=True)

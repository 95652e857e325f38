"""A store in this process's memory."""

from torch import Tensor

from cacovid.store.entry import FEATURES, ClipFacts, Counters, Entry, Store
from cacovid.store.recent import Recent


class MemoryStore(Store):
    """The most recently used parts that fit into `limit` bytes of the CPU's memory together."""

    def __init__(self, limit: int, counters: Counters) -> None:
        self.counters = counters
        self._parts: Recent[tuple[str, str], tuple[ClipFacts, Tensor]] = Recent(limit)

    def get(self, key: str, parts: frozenset[str]) -> Entry | None:
        found = {}
        for name in (*sorted(parts), FEATURES):
            part = self._parts.get((key, name))
            if part is None:
                return None
            facts, found[name] = part
        return Entry(facts, found)

    def has(self, key: str, parts: frozenset[str]) -> bool:
        return all((key, name) in self._parts for name in (*parts, FEATURES))

    def put(self, key: str, entry: Entry) -> None:
        for name, tensor in entry.parts.items():
            if (key, name) not in self._parts:
                own = tensor.to("cpu", copy=True)
                self.counters.evicted += self._parts.put((key, name), (entry.facts, own), own.nbytes)

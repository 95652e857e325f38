"""The store in memory."""

import torch
from store.conftest import FACTS, KEY, same

from cacovid.store import Counters, Entry, MemoryStore

KEYS = frozenset({"keys"})


def test_parts_come_back_and_are_the_stores_own(entry: Entry) -> None:
    store = MemoryStore(2**20, Counters())
    store.put(KEY, Entry(FACTS, {"features": entry.parts["features"]}))
    assert store.get(KEY, KEYS) is None
    store.put(KEY, entry)
    kept = Entry(FACTS, {name: part.clone() for name, part in entry.parts.items()})
    entry.parts["keys"].zero_()
    assert same(store.get(KEY, KEYS), kept, "features", "keys")
    assert same(store.get(KEY, frozenset()), kept, "features")


def test_the_least_recently_used_go_first() -> None:
    made = Entry(FACTS, {"features": torch.ones(1, 10, 10)})
    store = MemoryStore(3 * 400, Counters())
    for key in "abc":
        store.put(key, made)
    assert store.get("a", frozenset())
    store.put("d", made)
    assert [key for key in "abcd" if store.get(key, frozenset())] == ["a", "c", "d"]
    assert store.counters.evicted == 1

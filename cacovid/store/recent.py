"""A size-limited memory of what was used last."""

from collections import OrderedDict
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """The most recently used values whose sizes fit into `limit` bytes together; 0 keeps none."""

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self._kept: OrderedDict[Key, tuple[Value, int]] = OrderedDict()

    def __contains__(self, key: Key) -> bool:
        return key in self._kept

    def get(self, key: Key) -> Value | None:
        """The value, which is now the last used one; None where it is not here."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def put(self, key: Key, value: Value, size: int) -> int:
        """Keep a value that is not here yet, of `size` bytes; how many were let go for it."""
        self._kept[key] = value, size
        self.size += size
        gone = 0
        while self.size > self.limit:
            self.size -= self._kept.popitem(last=False)[1][1]
            gone += 1
        return gone

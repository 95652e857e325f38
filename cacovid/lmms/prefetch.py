"""What comes next, begun before its turn: calls in background threads, and a look ahead along a sequence."""

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
Made = TypeVar("Made")


class Ahead(Generic[Key, Value]):
    """Calls that run in up to `count` background threads before their results are asked for; each runs once."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="read ahead") if count else None
        self._begun: dict[Key, Future[Value]] = {}
        self._wanted: frozenset[Key] = frozenset()

    def __contains__(self, key: Key) -> bool:
        return key in self._begun

    def wants(self, key: Key) -> bool:
        """Whether the call of `key` is still wanted; for the call itself, before it does what takes long."""
        return key in self._wanted

    def begin(self, wanted: Mapping[Key, Callable[[], Value]]) -> None:
        """Begin the calls that are not begun yet, in order, and drop those of before that are not wanted any more."""
        self._wanted = frozenset(wanted)  # before any call begins, and asks
        for key in [key for key in self._begun if key not in wanted]:
            self._begun.pop(key).cancel()
        for key, call in wanted.items():
            if self._pool is not None and key not in self._begun:
                self._begun[key] = self._pool.submit(call)

    def take(self, key: Key) -> Value:
        """The result of a call that was begun, as soon as it is there; forgotten here. Raises what the call raised."""
        try:
            return self._begun[key].result()
        finally:
            self._begun.pop(key)

    def stop(self) -> bool:
        """Drop all calls; whether one of them is running still."""
        self._wanted = frozenset()
        dropped = list(self._begun.values())
        self._begun.clear()
        return any([not future.cancel() and future.running() for future in dropped])


def looking_ahead(
    made: Iterator[Made], enough: Callable[[Sequence[Made]], bool]
) -> Iterator[tuple[Made, Sequence[Made]]]:
    """Each of `made` with those that follow it: as many as it takes until `enough` says that they are.

    An exception of `made` comes out in its turn, after all that was made before it.
    """
    queue: deque[Made] = deque()
    end: Exception | None = None

    def fill(enough: Callable[[Sequence[Made]], bool]) -> None:
        nonlocal end
        while end is None and not enough(queue):
            try:
                queue.append(next(made))
            except Exception as error:  # StopIteration, too
                end = error

    while True:
        fill(lambda following: len(following) > 0)
        if not queue:
            if end is None or isinstance(end, StopIteration):
                return
            raise end
        first = queue.popleft()
        fill(enough)
        yield first, queue

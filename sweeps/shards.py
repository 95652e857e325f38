"""Shards: stretches of a task's documents. Read without torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """Stretch `number` (0-based) of `of` nearly equal ones of a task's documents."""

    number: int = 0
    of: int = 1

    def part(self, number: int, of: int) -> "Shard":
        """A stretch of this stretch."""
        return Shard(self.number * of + number, self.of * of)

    def span(self, documents: int) -> tuple[int, int]:
        """First document, and how many.

        >>> [Shard(k, 3).span(10) for k in range(3)]
        [(0, 3), (3, 3), (6, 4)]
        """
        first = self.number * documents // self.of
        return first, (self.number + 1) * documents // self.of - first

    @property
    def name(self) -> str:
        """As in folders and journals: `2-of-8`, counted from 1."""
        return f"{self.number + 1}-of-{self.of}"

"""A made-up entry, and the plugin's small world for whole videos."""

from collections.abc import Iterator

import pytest
import torch
from lmms.conftest import world  # noqa: F401  a fixture
from loguru import logger

from cacovid.store import ClipFacts, Entry

FACTS = ClipFacts("5a" * 32, (0, 3, 7), 8, 12.5, "decord")
KEY = "ab" + "0" * 62


@pytest.fixture
def entry() -> Entry:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 4, 5, generator=generator).bfloat16()
    return Entry(FACTS, {"features": features, "keys": torch.randn(3, 4, 2, 3, generator=generator)})


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What was logged."""
    lines: list[str] = []
    number = logger.add(lambda message: lines.append(message.record["message"]), level="WARNING")
    yield lines
    logger.remove(number)


def same(a: Entry | None, b: Entry, *names: str) -> bool:
    """Whether `a` holds exactly these parts of `b`, bit by bit and in the same layout."""
    return (
        a is not None
        and (a.facts, set(a.parts)) == (b.facts, set(names))
        and all(
            a.parts[name].dtype == b.parts[name].dtype
            and a.parts[name].stride() == b.parts[name].stride()
            and torch.equal(a.parts[name], b.parts[name])
            for name in names
        )
    )

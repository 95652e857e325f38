"""All tokens: the uncompressed model, run through the same code as every method."""

from dataclasses import dataclass
from typing import ClassVar

from cacovid.errors import BudgetError
from cacovid.method import Method


@dataclass(frozen=True, kw_only=True)
class Full(Method):
    """All video tokens: the uncompressed reference."""

    source: ClassVar[str] = "no paper: the stock model"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.retention != 1:
            raise BudgetError(f"full keeps every token: got retention={self.retention}, expected 1.0")

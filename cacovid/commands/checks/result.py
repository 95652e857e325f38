"""One line of the doctor's report."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "missing", "problem"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was tried, what came out, and what to do about it."""

    name: str
    state: State
    detail: str
    get: str = ""  # how to get what is missing, or to repair it
    required: bool = True  # False: the suite works without it

    @property
    def failed(self) -> bool:
        return self.required and self.state != "ok"


def reason(error: BaseException) -> str:
    """An exception on one line."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}" if words else type(error).__name__

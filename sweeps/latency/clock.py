"""Two clocks for the same code: one that takes the stages apart, and one that does not interrupt."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch


class Clock(Protocol):
    """What a pass is given."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """The block is stage `name`."""


class Uninterrupted:
    """Marks nothing: what it times is one call, from outside."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        return nullcontext()


class StageTimer:
    """Seconds of each stage, by device events on CUDA, else by `time.perf_counter`.

    Every boundary waits for the device. A stage inside another takes its time away from the outer one; a stage that is
    entered twice adds up.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._name: str | None = None
        self._since: Any = None
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        outer = self._name
        self._switch(name)
        try:
            yield
        finally:
            self._switch(outer)

    def _switch(self, name: str | None) -> None:
        now = self._mark()
        if self._name is not None:
            self.seconds[self._name] = self.seconds.get(self._name, 0.0) + self._between(self._since, now)
        self._name, self._since = name, now

    def _mark(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        event.synchronize()
        return event

    @staticmethod
    def _between(start: Any, end: Any) -> float:
        return end - start if isinstance(start, float) else start.elapsed_time(end) / 1000  # events tell milliseconds


def wall_clock(device: torch.device) -> float:
    """Seconds, with nothing left to do on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()

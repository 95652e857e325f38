"""Stage times that mean something on an accelerator: the device is synchronised before every clock read."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class StageClock:
    """Seconds spent in named stages; a stage entered twice adds up."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block under `name`."""
        start = self._now()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - start

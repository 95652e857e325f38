"""A progress bar over a sweep's samples, from what lies in its folder."""

import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

from sweeps.folder import Folder
from sweeps.overview import overview

_REFRESH_S = 5.0


class Bar:
    """As a context manager; `refresh` may be called often."""

    def __init__(self, folder: Folder) -> None:
        self._folder, self._next = folder, 0.0

    def __enter__(self) -> Self:
        self._bar = tqdm(unit="sample")
        self.refresh()
        self._bar.initial = self._bar.n  # the rate is that of this call
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._next = 0.0
        self.refresh()
        self._bar.close()

    def refresh(self) -> None:
        """Read the folder anew, if that is not a moment ago."""
        if time.monotonic() < self._next:
            return
        found = overview(self._folder)
        self._bar.total, self._bar.n = found.expected, found.samples
        told = [*found.counts.items(), *found.waits.items()]
        self._bar.set_postfix({name: count for name, count in told if count})
        self._next = time.monotonic() + _REFRESH_S

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.write(text)

"""Peak memory of a block above what was in use before it."""

from pathlib import Path

import torch

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class PeakMemory:
    """As a context manager; then `above` is in bytes, or None with the `reason`.

    On CUDA it is what torch allocated. On a CPU it is the resident set, which does not rise where the allocator uses
    pages again that it kept: a lower bound.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.above: int | None = None
        self.reason: str | None = None

    @property
    def how(self) -> str:
        return "torch.cuda.max_memory_allocated" if self._device.type == "cuda" else "peak resident set"

    def __enter__(self) -> "PeakMemory":
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
            return self
        try:
            _CLEAR.write_text("5")  # of Linux: the peak starts again from what is resident now
            self._before = _status("VmRSS")
        except (OSError, KeyError) as error:
            self.reason = f"the system does not tell the peak of the resident set ({error})"
        return self

    def __exit__(self, *_: object) -> None:
        if self._device.type == "cuda":
            self.above = torch.cuda.max_memory_allocated(self._device) - self._before
        elif self.reason is None:
            self.above = max(0, _status("VmHWM") - self._before)


def _status(name: str) -> int:
    """A figure of /proc/self/status in bytes."""
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
    return int(lines[name].split()[0]) * 1024


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is the device's or the machine's memory; torch has no class of its own for the CPU's."""
    words = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in words or "can't allocate memory" in words)
    )

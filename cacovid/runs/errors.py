"""What can go wrong with a run's directory. Each error says what was kept and what to do."""


class RunError(ValueError):
    """A run directory that cannot be read: damaged, or of another schema."""


class RunLockedError(RunError):
    """Another process is writing this run."""


class RunWriteError(OSError):
    """A record could not be written: the disk is full, read-only or gone. What was written before is safe."""

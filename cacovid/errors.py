"""Errors that a user can cause. Each says what was got, what was expected and what to do."""


class BudgetError(ValueError):
    """A retention ratio or budget that cannot be met."""


class FloorError(BudgetError):
    """A budget below what a method needs at the least, `floor`, as a share of the video tokens."""

    def __init__(self, floor: float, message: str) -> None:
        super().__init__(message)
        self.floor = floor


class MethodError(ValueError):
    """A method that is unknown, mis-declared, or returned something that breaks the contract."""


class PromptError(ValueError):
    """A request whose shape is not supported (no video, two videos, ...)."""


class CheckpointError(ValueError):
    """A checkpoint that is missing, incomplete, or of another family."""


class DeviceError(ValueError):
    """A device or attention backend that is not there."""

"""Exit status. lmms-eval's command catches every Exception and ends with 0, crashed or not."""

import atexit
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from cacovid.errors import BudgetError, CheckpointError, DeviceError, MethodError, PromptError
from cacovid.lmms.arguments import ArgumentError
from cacovid.runs import RunError, RunWriteError

USER_ERRORS = (
    ArgumentError,
    BudgetError,
    CheckpointError,
    DeviceError,
    MethodError,
    PromptError,
    RunError,
    RunWriteError,
)
_alarm: list[int] = []  # number of failed samples, once a handler is registered


def under_command() -> bool:
    """True inside `lmms-eval ...` or `python -m lmms_eval`; False where a program calls `simple_evaluate`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return "lmms_eval.__main__" in sys.modules or (spec is not None and spec.name == "lmms_eval.__main__")


@contextmanager
def exit_status() -> Iterator[None]:
    """Under the command, end the process with status 1 on any exception; elsewhere let it pass.

    A user's error is one line without a traceback.
    """
    try:
        yield
    except Exception as error:
        if not under_command():
            raise
        if not isinstance(error, USER_ERRORS):
            traceback.print_exc()
        raise SystemExit(f"cacovid: error: {error}") from error


def failed_samples(count: int) -> None:
    """Under the command, make the process end with status 1, after lmms-eval has written its results.

    An exit handler is the only place after that; handlers registered before this one do not run. Everything
    that must be on disk by then, is (the journal after each line); the video reader ends when its parent is gone.
    """
    if not count or not under_command():
        return
    if not _alarm:
        atexit.register(_end)
    _alarm.append(count)


def _end() -> None:
    print(f"cacovid: {sum(_alarm)} samples have no answer, see above; exit status 1", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)

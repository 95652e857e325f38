"""Counts the errors that decord's own libav reports: decord itself returns concealed pictures without a word."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

_ERROR = 16  # AV_LOG_ERROR; smaller is worse
_HOOK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)

_lock = Lock()
_readers = 0  # reads in progress, in all threads
_errors = 0  # since the program started


class ErrorCount:
    """`value`: errors reported since the block began, those of other threads' readers included."""

    def __init__(self) -> None:
        self._before = _errors

    @property
    def value(self) -> int:
        return _errors - self._before


@contextmanager
def decord_errors() -> Iterator[ErrorCount]:
    """Within the block decord's libav reports here and not on stderr; afterwards as before.

    Where decord was built against a libav that is not beside it, nothing is counted.
    """
    global _readers
    library = _libavutil()
    with _lock:
        _readers += 1
        if library and _readers == 1:
            library.av_log_set_callback(_hook)
    try:
        yield ErrorCount()
    finally:
        with _lock:
            _readers -= 1
            if library and _readers == 0:
                library.av_log_set_callback(library.av_log_default_callback)


@_HOOK
def _hook(_context: int, level: int, _format: bytes, _arguments: int) -> None:
    global _errors
    if level <= _ERROR:
        _errors += 1


@cache
def _libavutil() -> Any:
    """The libavutil that decord's wheel carries in decord.libs; PyAV's is another one."""
    import decord

    beside = Path(decord.__file__).parent.parent / "decord.libs"
    found = sorted(beside.glob("libavutil*.so*"))
    return ctypes.CDLL(str(found[0])) if found else None

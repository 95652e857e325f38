"""Writing that survives kill -9, a full disk and a second writer."""

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cacovid.runs.errors import RunError, RunLockedError, RunWriteError


@contextmanager
def write_errors(path: Path, kept: str) -> Iterator[None]:
    """Turn an OSError into a RunWriteError that says what is safe and what to do."""
    try:
        yield
    except RunWriteError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        what = "the disk is full" if full else f"writing failed ({error.strerror or error})"
        advice = "free some space" if full else "make the folder writable"
        raise RunWriteError(
            error.errno, f"{what}; {kept}. {advice[0].upper()}{advice[1:]} and run the same command again", str(path)
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write beside, flush to disk, rename: readers see the old file or the new one, never half of one."""
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename or a new file survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Lock:
    """An advisory lock on a file; the kernel drops it when its process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        """Raises RunLockedError while another process holds it."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(self._file, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise RunLockedError(
                f"{path.parent} is being written by another process (pid {owner}); wait for it, or give this one "
                f"another results_dir"
            ) from error
        os.ftruncate(self._file, 0)
        os.write(self._file, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Give the lock back."""
        os.close(self._file)


class Journal:
    """JSON lines, appended and flushed to disk one at a time. A torn last line is dropped on opening."""

    def __init__(self, path: Path) -> None:
        """Raises RunError if a line other than the last cannot be read."""
        self.path = path
        self.rows, good = read_lines(path)
        new = not path.exists()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(self._file, good)
        self._end = good
        if new:
            sync_folder(path.parent)

    def append(self, row: dict[str, Any]) -> None:
        """Write one line; it is on disk when this returns. On failure the file is as it was before."""
        data = json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._file, data[written:], self._end + written)
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._end)
            raise
        self._end += len(data)
        self.rows.append(row)

    def replace(self, rows: list[dict[str, Any]]) -> None:
        """Put `rows` in place of everything: written beside, renamed."""
        part = self.path.with_name(self.path.name + ".part")
        data = b"".join(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n" for row in rows)
        try:
            with open(part, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self.path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        sync_folder(self.path.parent)
        os.close(self._file)
        self._file = os.open(self.path, os.O_RDWR)
        self._end, self.rows = len(data), list(rows)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """All complete rows of a journal, and the number of bytes they take. A missing file has none."""
    if not path.exists():
        return [], 0
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1  # what follows was being written when its process died
    rows = []
    for number, line in enumerate(data[:end].splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise RunError(
                f"{path}, line {number} is damaged ({error}); delete that line to have its sample computed again"
            ) from error
    return rows, end

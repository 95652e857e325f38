"""A store in a folder, which processes on several machines may share.

<folder>/<2 hex>/<key>.<part>.safetensors: one file a part, complete from the moment it is there. Writers of one
part write the same bytes, and the last one wins.
"""

import errno
import os
import time
from contextlib import suppress
from pathlib import Path

from loguru import logger
from safetensors import SafetensorError
from torch import Tensor

from cacovid.store.entry import FEATURES, ClipFacts, Counters, Entry, Store
from cacovid.store.part import read_part, write_part

IN_USE = 60.0
"""Seconds for which a used part is not evicted: another process may have it mapped, and on a network file system a
mapped file that is removed kills its reader."""

_ABANDONED = 3600.0  # seconds after which a half-written file is that of a dead process
_DAMAGE = (OSError, SafetensorError, ValueError, KeyError, TypeError)
"""What reading a damaged part raises, whichever byte of it is wrong."""


class DiskStore(Store):
    """Parts in `folder`, `limit` bytes together; the least recently used go first, by modification time."""

    def __init__(self, folder: str | Path, limit: int, counters: Counters) -> None:
        self.folder, self.limit, self.counters = Path(folder), limit, counters
        self._checked: set[tuple[Path, int, int]] = set()  # path, inode and size of parts whose checksum was right
        self._complained: set[Path] = set()
        self._writes = True
        self._room = 0  # bytes to write before the folder is looked through again

    def get(self, key: str, parts: frozenset[str]) -> Entry | None:
        found = {}
        for name in (*sorted(parts), FEATURES):
            part = self._read(key, name)
            if part is None:
                return None
            facts, found[name] = part
        return Entry(facts, found)

    def has(self, key: str, parts: frozenset[str]) -> bool:
        return all(self._path(key, name).exists() for name in (*parts, FEATURES))

    def put(self, key: str, entry: Entry) -> None:
        if not self._writes:
            return
        try:
            for name, tensor in entry.parts.items():
                if not (path := self._path(key, name)).exists():
                    self._room -= write_part(path, key, name, entry.facts, tensor.cpu())
            if self._room < 0:
                self._make_room()
        except OSError as error:
            self._writes = False
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            why = "the disk is full" if full else f"writing failed: {error.strerror or error}"
            logger.warning(
                f"{self.folder}: {why}; no more encoded videos are stored, the evaluation goes on without. "
                f"{'Free some space' if full else 'Make the folder writable'}, or choose another store_dir, before "
                f"the next run"
            )

    def _path(self, key: str, name: str) -> Path:
        return self.folder / key[:2] / f"{key}.{name}.safetensors"

    def _read(self, key: str, name: str) -> tuple[ClipFacts, Tensor] | None:
        path = self._path(key, name)
        try:
            status = os.stat(path)
            with suppress(OSError):  # a store that cannot be written serves all the same
                os.utime(path)  # before it is mapped: see IN_USE
            mark = path, status.st_ino, status.st_size
            part = read_part(path, key, name, check=mark not in self._checked)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except RuntimeError:
            # torch maps the file by its name, after safetensors has opened it: another process may evict it between.
            if path.exists():
                raise
            return None
        except _DAMAGE as error:
            self._drop(path, error)
            return None
        self._checked.add(mark)
        return part

    def _drop(self, path: Path, error: Exception) -> None:
        self.counters.dropped += 1
        if path not in self._complained:
            self._complained.add(path)
            logger.warning(f"{path} is damaged ({error}); it is dropped and its video encoded again")
        with suppress(OSError):
            path.unlink()

    def _make_room(self) -> None:
        """Evict down to 95 % of the limit.

        The next look comes after 5 % more were written here: seldom enough for a large store, and several
        writers, who do not know of one another, pass the limit by no more than 5 % each.
        """
        self._room = self.limit // 20
        now, total = time.time(), 0
        unused: list[tuple[float, int, str]] = []
        for group in os.scandir(self.folder):
            for file in os.scandir(group.path) if group.is_dir() else ():
                with suppress(FileNotFoundError):  # another process has just evicted or finished it
                    status = file.stat()
                    age = now - status.st_mtime
                    if not file.name.endswith(".part"):
                        total += status.st_size
                        if age > IN_USE:
                            unused.append((status.st_mtime, status.st_size, file.path))
                    elif age > _ABANDONED:
                        os.unlink(file.path)
        for used, size, path in sorted(unused):
            if total <= self.limit - self._room:
                return
            with suppress(FileNotFoundError):
                if os.stat(path).st_mtime == used:  # not used since it was looked at
                    os.unlink(path)
                    total -= size
                    self.counters.evicted += 1

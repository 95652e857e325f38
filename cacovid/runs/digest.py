"""Stable hashes of files, documents and task configurations."""

import hashlib
import inspect
import json
import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np


def file_sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_sha256(path: str | Path) -> str:
    """`file_sha256`, computed once in this process for a file of this path, size and modification time."""
    status = os.stat(path)
    return _known_sha256(os.path.abspath(path), status.st_size, status.st_mtime_ns)


@cache
def _known_sha256(path: str, size: int, mtime_ns: int) -> str:
    return file_sha256(path)


def text_sha256(text: str) -> str:
    """Hex SHA-256 of a text as UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; what JSON lacks is replaced as `plain` says."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=plain)


def digest(value: Any) -> str:
    """Hex SHA-256 of `canonical(value)`: equal content, equal hash, in every process.

    >>> digest({"a": 1, "b": (2, 3)}) == digest({"b": [2, 3], "a": 1})
    True
    """
    return text_sha256(canonical(value))


def plain(value: Any) -> Any:
    """JSON-ready stand-in. Functions become name and source hash: their `repr` holds an address that changes
    with every process. Pixels and bytes become hashes; an object of any other kind becomes its type's name."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return {"array": hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest(), "shape": value.shape}
    if isinstance(value, bytes | bytearray):
        return {"bytes": hashlib.sha256(value).hexdigest()}
    if isinstance(value, set | frozenset):
        return sorted(canonical(item) for item in value)
    if hasattr(value, "tobytes") and hasattr(value, "mode"):  # a PIL image, without importing PIL
        return {"image": hashlib.sha256(value.tobytes()).hexdigest(), "size": value.size, "mode": value.mode}
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if callable(value):
        return _function(value)
    return {"type": f"{type(value).__module__}.{type(value).__qualname__}"}


def _function(function: Callable[..., Any]) -> dict[str, Any]:
    """Name, bound arguments, and the hash of the file that the function stands in."""
    if isinstance(function, partial):
        return {"of": plain(function.func), "args": function.args, "keywords": function.keywords}
    name = getattr(function, "__qualname__", type(function).__qualname__)
    try:
        source = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:  # built in
        source = None
    return {"function": name, "source": file_sha256(source) if source and Path(source).is_file() else None}

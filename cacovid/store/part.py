"""One part of an entry as a safetensors file: written atomically, memory-mapped and checksummed on reading."""

import json
import os
import socket
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

import torch
import xxhash
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from cacovid.store.entry import ClipFacts

_SUM = "xxh3_128"


def read_part(path: Path, key: str, name: str, *, check: bool) -> tuple[ClipFacts, Tensor]:
    """The clip's facts and the tensor, mapped from the file: copy it before the file can go.

    Raises ValueError if `check` finds other bytes than were written, and OSError, SafetensorError, ValueError,
    KeyError or TypeError for a file that is damaged otherwise.
    """
    with safe_open(path, framework="pt") as file:
        head = file.metadata()
        tensor = file.get_tensor(name)
    if check and head[_SUM] != (found := checksum(key, name, head["facts"], tensor)):
        raise ValueError(f"its checksum is {found}, expected {head[_SUM]}")
    return ClipFacts.from_json(json.loads(head["facts"])), tensor


def write_part(path: Path, key: str, name: str, facts: ClipFacts, tensor: Tensor) -> int:
    """Write a CPU tensor beside, flush it to disk, rename; the number of bytes. Raises OSError."""
    told = json.dumps(asdict(facts))
    # As bytes first: safetensors' own writing to a file turns a full disk into an error without its number.
    data = save({name: tensor}, {"facts": told, _SUM: checksum(key, name, told, tensor)})
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex}.part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return len(data)


def checksum(key: str, name: str, facts: str, tensor: Tensor) -> str:
    """Hex xxh3_128 of all that a part says: whose it is, the facts, the tensor's layout and its bytes."""
    total = xxhash.xxh3_128(json.dumps([key, name, facts, str(tensor.dtype), list(tensor.shape)]).encode())
    total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()

"""Is the file shorter than its container says? Read from the outermost structure alone, a few bytes a box.

Decoders are no help here: PyAV and decord report the end of a cut Matroska file as its normal end.
"""

import os
from typing import BinaryIO

_MP4_FIRST = {b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"}  # boxes a file may begin with
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def cut_off(path: str) -> str | None:
    """How the file at `path` is incomplete, in words, or None where nothing shows.

    Seen: MP4/MOV, Matroska/WebM and AVI that end inside a part whose length they state, and MP4 without its
    index. Not seen: live recordings of unstated length, a fragmented MP4 cut exactly between two fragments,
    MPEG-TS and other formats which state no length; and packets lost from the middle of an AVI or TS file.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(12)
        if head[4:8] in _MP4_FIRST:
            return _mp4(file, size)
        if head[:4] == _EBML:
            return _ends_early("its Matroska segment", _matroska_end(file), size)
        if head[:4] == b"RIFF":
            return _ends_early("its RIFF chunk", _riff_end(file), size)
    return None


def _ends_early(part: str, end: int | None, size: int) -> str | None:
    if end is None or end <= size:
        return None
    return f"the file ends at byte {size:,}, {part} runs to byte {end:,}"


def _mp4(file: BinaryIO, size: int) -> str | None:
    offset, index_seen = 0, False
    while offset + 8 <= size:
        file.seek(offset)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        index_seen |= kind == b"moov"
        if length == 1:  # the true length follows in 8 bytes
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:  # runs to the end of the file, however long that is
            length = size - offset
        if length < 8:  # padding or rubbish behind the last box; players ignore it
            break
        offset += length
        if offset > size:
            return _ends_early(f"its {kind.decode('latin1')!r} box", offset, size)
    return None if index_seen else "it has no 'moov' box, the index of all frames, which most recorders write last"


def _matroska_end(file: BinaryIO) -> int | None:
    file.seek(4)
    header = _ebml_length(file)
    if header is None:
        return None
    file.seek(header, os.SEEK_CUR)
    if file.read(4) != _SEGMENT:
        return None
    length = _ebml_length(file)
    return None if length is None else file.tell() + length


def _ebml_length(file: BinaryIO) -> int | None:
    """A variable-length size field: the leading zeros of its first byte count the bytes that follow."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    extra = 8 - first[0].bit_length()
    raw = int.from_bytes(first + file.read(extra), "big")
    mask = (1 << 7 * (extra + 1)) - 1
    return None if raw & mask == mask else raw & mask  # all ones: length unknown, a live recording


def _riff_end(file: BinaryIO) -> int | None:
    """End of the last of the RIFF chunks; AVI files beyond 1 GB are a chain of them."""
    offset = 0
    while True:
        file.seek(offset)
        head = file.read(8)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] != b"RIFF":
            return offset
        if length in (0, 0xFFFFFFFF):  # never filled in: a stream or a killed recorder
            return None
        offset += 8 + length

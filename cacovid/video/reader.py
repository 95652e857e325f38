"""Read a clip in this process. A file on which a decoder hangs hangs the caller: see `VideoWorker`."""

import hashlib
import os
from typing import Literal, get_args

from cacovid.video import decord_backend, pyav_backend
from cacovid.video.clip import Backend, Choose, Clip, Decoded, Sampling, sample_indices
from cacovid.video.errors import VideoError
from cacovid.video.index import StreamIndex, build_index, check_file

Decoder = Literal["auto", "decord", "pyav"]


def read_clip(
    path: str | os.PathLike[str],
    frames: int = 32,
    *,
    sampling: Sampling = "round",
    backend: Decoder = "auto",
    threads: int = 2,
) -> Clip:
    """`frames` uniformly sampled frames (all of a shorter video) with their times and the file's hash.

    All packets are scanned first, without decoding; that table says which frames exist, whatever decodes them.
    "auto" takes decord where its random access is right, and PyAV for the rest: open groups of pictures, edit
    lists, MPEG-TS, AVI, AV1, and files on which decord reports any error. "decord" refuses those files instead,
    "pyav" never uses decord. `threads` are the decoder's own; 0 lets it choose.

    What damage goes unnoticed is said at `cutoff.cut_off` and `pyav_backend.decode`. Rotation metadata is
    applied in steps of 90 degrees; mirroring and non-square pixels are ignored, as decord does.

    Raises VideoError for the file, ValueError for the arguments, ImportError where a decoder is not installed.
    """
    check_request(frames, sampling, backend)
    name = os.fsdecode(path)
    check_file(name)
    try:
        with open(name, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        index = build_index(name)
    except OSError as error:
        detail = f"cannot be read ({error.strerror or error}); check its permissions and its disk"
        raise VideoError("undecodable", name, detail) from error
    decoded, used = _decode(index, lambda total: sample_indices(total, frames, sampling), backend, threads)
    return Clip(
        frames=decoded.frames,
        indices=tuple(decoded.indices.tolist()),
        seconds=tuple(decoded.seconds.tolist()),
        total_frames=decoded.total,
        fps=decoded.fps,
        backend=used,
        sampling=sampling,
        path=name,
        sha256=sha256,
    )


def check_request(frames: int, sampling: str, backend: str) -> None:
    """Raises ValueError for arguments that fit no file."""
    sample_indices(1, frames, sampling)  # type: ignore[arg-type]  # checks both
    if backend not in get_args(Decoder):
        raise ValueError(f"backend {backend!r}, expected one of {', '.join(get_args(Decoder))}")


def _decode(index: StreamIndex, choose: Choose, backend: Decoder, threads: int) -> tuple[Decoded, Backend]:
    if backend != "pyav":
        try:
            return decord_backend.decode(index, choose, threads), "decord"
        except decord_backend.DecordDoubt as doubt:
            if backend == "decord":
                detail = f"decord reads it wrongly: {doubt}; use backend='auto' or 'pyav'"
                raise VideoError("undecodable", index.path, detail) from doubt
        except ImportError:
            if backend == "decord":
                raise
    return pyav_backend.decode(index, choose, threads), "pyav"

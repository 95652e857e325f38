"""Frames through decord, and the checks that it lacks."""

import os

import numpy as np
from numpy.typing import NDArray

from cacovid.video.clip import Choose, Decoded, frame_rate
from cacovid.video.index import StreamIndex
from cacovid.video.libav_log import decord_errors

_NO_REPEATS = 1e-9  # share of frames that decord may replace by their neighbours; 0 means "any number"
# How often decord polls for the last frames before it gives up. It does not wait in between, so that its default
# of 10240 fails on sound files when the machine is busy.
_EOF_POLLS = "1000000"


class DecordDoubt(Exception):
    """Decord cannot read this file, or what it returns cannot be trusted; PyAV has to."""


def decode(index: StreamIndex, choose: Choose, threads: int) -> Decoded:
    """The frames that `choose` picks, upright RGB. Raises DecordDoubt."""
    if index.decord_doubt:
        raise DecordDoubt(index.decord_doubt)
    import decord

    indices = choose(len(index.pts))
    with decord_errors() as errors:
        try:
            frames = _read(index, indices, threads)
        except (RuntimeError, AssertionError, decord.DECORDError, decord.DECORDLimitReachedError) as error:
            raise DecordDoubt(f"decord stops: {str(error).strip().splitlines()[-1]}") from None
    if errors.value:
        raise DecordDoubt(f"its decoder reported {errors.value} errors, frames may be concealed")
    fps = frame_rate(index.seconds, index.rate)
    return Decoded(frames, indices, index.seconds[indices], len(index.pts), fps)


def _read(index: StreamIndex, indices: NDArray[np.int64], threads: int) -> NDArray[np.uint8]:
    import decord

    os.environ.setdefault("DECORD_EOF_RETRY_MAX", _EOF_POLLS)
    reader = decord.VideoReader(os.path.abspath(index.path), num_threads=threads, fault_tol=_NO_REPEATS)
    try:
        if len(reader) != len(index.pts):
            raise DecordDoubt(f"decord counts {len(reader)} frames, the container lists {len(index.pts)}")
        starts = reader.get_frame_timestamp(indices)[:, 0].astype(np.float64)
        drift = np.abs(starts - starts[0] - index.seconds[indices]).max()
        gap = np.diff(index.seconds).min(initial=1.0)
        if drift > gap / 2:
            raise DecordDoubt(f"decord's presentation times are {drift:.3f} s off")
        batch = reader.get_batch(indices)
        # A caller may have set decord's bridge to torch for this process.
        return batch.asnumpy() if hasattr(batch, "asnumpy") else np.asarray(batch)
    finally:
        del reader  # stops its threads and frees its frame queue now, not at the next garbage collection

"""Exact frames through PyAV: seek to the key frame before each wanted frame, decode up to it, check for damage."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cacovid.video.clip import Choose, Decoded, frame_rate
from cacovid.video.errors import VideoError
from cacovid.video.index import StreamIndex, open_container

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_BT709, _BT601 = 1, 5  # FFmpeg's numbers


def decode(index: StreamIndex, choose: Choose, threads: int) -> Decoded:
    """The frames that `choose` picks, upright RGB.

    Damage that libavcodec notices in a wanted frame, or earlier in its group of pictures, is refused. Not
    noticed: changed bits that still form a valid stream, as about half of all flipped bytes do in H.264 and
    nearly all in VP9, and a frame predicted from a damaged one that is shown *after* it.

    Raises VideoError: undecodable, no_frames.
    """
    import av

    try:
        return (_by_seeking if index.exact else _by_counting)(index, choose, threads)
    except av.FFmpegError as error:
        detail = f"the decoder stops ({error.strerror}); the data is damaged, fetch the file again"
        raise VideoError("undecodable", index.path, detail) from error


def _by_seeking(index: StreamIndex, choose: Choose, threads: int) -> Decoded:
    indices = choose(len(index.pts))
    wanted = index.pts[indices]
    sink = _Sink(len(wanted))
    with ExitStack() as opened:
        container, stream = _open(opened, index, threads)
        back = 0  # key frames to start before the nearest, where seeking went too far
        while (got := sink.filled) < len(wanted):
            start = int(index.keys[max(0, _key_before(index, wanted[got]) - back)])
            container.seek(start, stream=stream)  # to a key frame at or before it, by rights
            _collect(sink, index, wanted, _frames(container, stream), start)
            if sink.filled > got:
                back = 0
            elif start > index.keys[0]:
                back = 2 * back + 1
            else:  # some demuxers compare with decoding times, and find no way back to the first frames
                _collect(sink, index, wanted, _frames(*_open(opened, index, threads)), start)
                if sink.filled == got:
                    detail = f"frame {indices[got]} is listed in the container, but the decoder does not give it"
                    raise VideoError("undecodable", index.path, f"{detail}; fetch the file again")
    return Decoded(sink.frames, indices, index.seconds[indices], len(index.pts), frame_rate(index.seconds, index.rate))


def _collect(
    sink: "_Sink",
    index: StreamIndex,
    wanted: NDArray[np.int64],
    frames: "Iterator[tuple[VideoFrame, bool]]",
    start: int,
) -> None:
    """Take the next wanted frames, until a seek is quicker, or one is missed."""
    for frame, damaged in frames:
        if frame.pts is None or frame.pts < start:
            continue  # leading pictures, predicted from frames before the key frame
        if frame.pts > wanted[sink.filled]:
            return
        if frame.pts == wanted[sink.filled]:
            if damaged:
                raise _damage(index, int(np.searchsorted(index.pts, frame.pts)))
            sink.add(frame)
            if sink.filled == len(wanted) or _key_ahead(index, frame.pts, wanted[sink.filled]):
                return


def _key_before(index: StreamIndex, pts: int) -> int:
    return max(0, int(np.searchsorted(index.keys, pts, side="right")) - 1)


def _key_ahead(index: StreamIndex, now: int, pts: int) -> bool:
    """Whether a key frame lies between `now` and the next wanted frame, so that seeking saves decoding."""
    return bool(index.keys[_key_before(index, pts)] > now)


def _by_counting(index: StreamIndex, choose: Choose, threads: int) -> Decoded:
    """Decode everything and count; once more where the packets were no true count of the frames."""
    total = len(index.pts)
    for _ in range(2):
        indices = choose(total)
        sink = _Sink(len(indices))
        times: list[float | None] = []
        with ExitStack() as opened:
            for frame, damaged in _frames(*_open(opened, index, threads)):
                if sink.filled < len(indices) and len(times) == indices[sink.filled]:
                    if damaged:
                        raise _damage(index, len(times))
                    sink.add(frame)
                times.append(frame.time)
        if len(times) == total:
            seconds = _seconds(times, index.rate)
            return Decoded(sink.frames, indices, seconds[indices], total, frame_rate(seconds, index.rate))
        if not times:
            raise VideoError("no_frames", index.path, "no frame of its video stream can be decoded")
        total = len(times)
    raise VideoError("undecodable", index.path, "gives another number of frames each time that it is decoded")


def _seconds(times: list[float | None], rate: float) -> NDArray[np.float64]:
    """(n,) presentation times from the decoder's, or from the frame rate where those are no rising sequence."""
    stamped = np.array([np.nan if time is None else time for time in times])
    if not np.isnan(stamped).any() and (np.diff(stamped) > 0).all():
        return stamped - stamped[0]
    return np.arange(len(times)) / (rate or 1.0)


def _open(opened: ExitStack, index: StreamIndex, threads: int) -> "tuple[InputContainer, VideoStream]":
    container = opened.enter_context(open_container(index.path))
    stream: VideoStream = container.streams[index.stream]  # type: ignore[assignment]
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = threads
    return container, stream


def _frames(container: "InputContainer", stream: "VideoStream") -> "Iterator[tuple[VideoFrame, bool]]":
    """Frames in presentation order, each with whether it or one before it in its group of pictures is damaged."""
    damaged = False
    for frame in container.decode(stream):
        damaged = frame.is_corrupt or (damaged and not frame.key_frame)
        yield frame, damaged


def _damage(index: StreamIndex, number: int) -> VideoError:
    detail = f"frame {number}, or one that it is predicted from, is damaged; fetch the file again"
    return VideoError("undecodable", index.path, detail)


class _Sink:
    """(F, H, W, 3) uint8, filled one upright frame at a time; size and turn are those of the first frame."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.filled = 0
        self.size: tuple[int, int] | None = None  # (W, H) as stored

    def add(self, frame: "VideoFrame") -> None:
        if self.size is None:
            self.size = frame.width, frame.height
            # Degrees that the stored picture is turned; np.rot90 turns counter-clockwise, as the metadata counts.
            self.turns = round(frame.rotation / 90)
            height, width = (self.size[1], self.size[0]) if self.turns % 2 == 0 else self.size
            self.frames = np.empty((self.length, height, width, 3), dtype=np.uint8)
        # A stream may change its size on the way; like decord, keep to the first.
        self.frames[self.filled] = np.rot90(_rgb(frame, *self.size).to_ndarray(), self.turns)
        self.filled += 1


def _rgb(frame: "VideoFrame", width: int, height: int) -> "VideoFrame":
    """As RGB, with the colour matrix and range that the frame names (BT.601 if none), bit-identical to decord's.

    PyAV hands both to libswscale only where source and target differ, so `to_ndarray("rgb24")` alone takes
    BT.709 for BT.601 (up to 35 levels off). An RGB target has no matrix: naming another one costs nothing.
    """
    return frame.reformat(
        width,
        height,
        "rgb24",
        dst_colorspace=_BT709 if frame.colorspace != _BT709 else _BT601,
        src_color_range=frame.color_range,
    )

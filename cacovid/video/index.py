"""The table of a file's frames, read from its packets without decoding: the truth that both decoders are held to."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cacovid.video.cutoff import cut_off
from cacovid.video.errors import VideoError
from cacovid.video.nal import starts_cleanly

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

_STAMPED = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}  # containers that store each frame's presentation time
_HIDDEN_FRAMES = {"vp8"}  # codecs with packets that show nothing, so that packets are no count of frames
_TEXT, _PLAYLIST = "text, of which FFmpeg would render a video", "a playlist, whose content lies in other files"
_NOT_ONE_VIDEO = dict.fromkeys(("tty", "bin", "xbin", "adf", "idf"), _TEXT)
_NOT_ONE_VIDEO |= dict.fromkeys(("hls", "dash", "concat"), _PLAYLIST)


@dataclass(frozen=True, slots=True, eq=False)
class StreamIndex:
    """Which frames a video stream shows, when, and where decoding can start. Times in units of `time_base`."""

    path: str
    stream: int  # index in the container
    pts: NDArray[np.int64]  # (n,) presentation times, rising
    keys: NDArray[np.int64]  # (k,) presentation times of the key frames, rising
    time_base: Fraction  # seconds a unit
    rate: float  # average frames a second that the container states; 0.0 unknown
    exact: bool  # `pts` is final; otherwise len(pts) is only an estimate and frames are counted by decoding
    decord_doubt: str | None  # why decord's random access is wrong on this file, or None

    @property
    def seconds(self) -> NDArray[np.float64]:
        """(n,) presentation times in seconds from the first frame shown."""
        return (self.pts - self.pts[0]) * float(self.time_base)


def open_container(path: str) -> "InputContainer":
    """PyAV's container for a local file. A playlist cannot lead it to the network. Raises VideoError."""
    import av

    try:
        # Absolute: FFmpeg takes "a:b.mp4" for a protocol.
        # container_options: with `options`, PyAV 15 crashes on files that do not announce their streams (FLV, MPEG).
        return av.open(os.path.abspath(path), container_options={"protocol_whitelist": "file"})
    except av.FFmpegError as error:
        detail = f"cannot be opened as a video ({error.strerror}); check that the file is one, or fetch it again"
        raise VideoError("undecodable", path, detail) from error


def build_index(path: str) -> StreamIndex:
    """Scan all packets of the file.

    Raises VideoError: truncated, no_video_stream, no_frames, undecodable.
    """
    import av

    if found := cut_off(path):
        raise VideoError("truncated", path, f"{found}; fetch the file again")
    with open_container(path) as container:
        if container.format.name in _NOT_ONE_VIDEO:
            kind = _NOT_ONE_VIDEO[container.format.name]
            raise VideoError("undecodable", path, f"is {kind}, expected a video file")
        scan = _Scan(container, *_pick_stream(container, path))
        try:
            with _libav_errors() as complaints:
                for packet in container.demux():
                    scan.add(packet)
        except av.FFmpegError as error:
            raise VideoError("undecodable", path, f"its packets cannot be read ({error.strerror})") from error
        if complaints and container.format.name == "matroska,webm":
            # The demuxer jumps over the damaged stretch and goes on: frames would be missing without a word.
            detail = f"its structure is damaged ({complaints[0]}); fetch the file again"
            raise VideoError("undecodable", path, detail)
        if shortage := scan.shortage():
            raise VideoError("truncated", path, f"{shortage}; fetch the file again")
        index = scan.finish(path)
    return index


@contextmanager
def _libav_errors() -> Iterator[list[str]]:
    """Collects what PyAV's libav reports as errors in this thread, on leaving the block."""
    import av

    before, found = av.logging.get_level(), list[str]()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture(local=True) as records:
            yield found
        found += [text.strip() for level, _, text in records if level <= av.logging.ERROR]
    finally:
        av.logging.set_level(before)


def _pick_stream(container: "InputContainer", path: str) -> "tuple[VideoStream, bool]":
    """The video stream to read and whether it is the only one; a cover picture is none."""
    from av.stream import Disposition

    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not moving:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        cover = " (the video stream is a cover picture)" if container.streams.video else ""
        raise VideoError("no_video_stream", path, f"holds {kinds}{cover}, expected a video stream")
    best = container.streams.best("video")
    stream = best if best in moving else moving[0]
    if stream.codec_context is None:
        raise VideoError("undecodable", path, "its video codec is unknown here; convert the file to H.264")
    return stream, len(moving) == 1


class _Scan:
    """Packets in, in decoding order; a `StreamIndex` out."""

    def __init__(self, container: "InputContainer", stream: "VideoStream", alone: bool) -> None:
        self.container, self.stream, self.alone = container, stream, alone
        self.codec = stream.codec_context.name
        self.stream_index = stream.index  # PyAV's properties are slow, and there may be a million packets
        self.pts: list[int] = []
        self.keys: list[int] = []
        self.ends: dict[int, int] = {}  # latest time that each stream reaches, in its own units
        self.shown = 0  # packets not hidden by an edit list
        self.unstamped = self.hidden = self.open = self.crowded = self.corrupt = False

    def add(self, packet: "Packet") -> None:
        if packet.size == 0:  # PyAV's flush packet
            return
        pts, stream = packet.pts, packet.stream_index
        if pts is not None:
            self.ends[stream] = max(self.ends.get(stream, 0), pts + (packet.duration or 0))
        if stream != self.stream_index:
            return
        self.corrupt |= packet.is_corrupt
        self.hidden |= packet.is_discard
        self.shown += not packet.is_discard
        if pts is None:
            self.unstamped = True
            return
        if packet.is_keyframe:
            # Seeking to the last key frame may land on this one, where demuxers go by decoding times.
            self.crowded |= bool(self.keys) and packet.dts is not None and packet.dts <= self.keys[-1]
            self.keys.append(pts)
            self.open = self.open or not starts_cleanly(self.codec, self.stream.codec_context.extradata, bytes(packet))
        elif not self.keys:
            return  # nothing to predict from: not decodable
        elif pts < self.keys[-1]:
            self.open = True
            if len(self.keys) == 1:
                return  # predicted from a group of pictures that was cut away
        if not packet.is_discard:
            self.pts.append(pts)

    def shortage(self) -> str | None:
        """How the packets fall short of what the container promises, or None."""
        import av

        if self.corrupt:
            return "its last packet runs beyond the end of the data"
        # Only in Matroska does a damaged stretch end the packets early and unreported; MP4 has its index, and
        # elsewhere the stated duration is an estimate. (AVI states slots, of which many may be empty by right.)
        if self.container.format.name != "matroska,webm" or not self.container.duration or not self.pts:
            return None
        stated = self.container.duration / av.time_base  # seconds
        units = {stream.index: float(stream.time_base or 0) for stream in self.container.streams}
        reached = max(end * units[stream] for stream, end in self.ends.items())
        # Matroska need not say how long the last frame stays; in a slide show, as long as its neighbours.
        gap = float(np.diff(np.sort(self.pts)).max(initial=0)) * units[self.stream_index]
        if stated - reached <= max(1.0, 0.02 * stated, 2 * gap):
            return None
        return f"its data ends after {reached:.2f} s of the {stated:.2f} s that it states"

    def finish(self, path: str) -> StreamIndex:
        container, codec = self.container.format.name, self.codec
        if not self.shown:
            raise VideoError("no_frames", path, "its video stream holds no frame, expected at least one")
        exact = (
            container in _STAMPED
            and codec not in _HIDDEN_FRAMES
            and not self.unstamped
            and bool(self.keys)
            and len(set(self.pts)) == len(self.pts) > 0
        )
        doubts = {
            f"its container or codec ({container}, {codec}) gives no exact frame table": not exact,
            "its groups of pictures are open, a key frame is no clean start": self.open,
            "its key frames are closer together than its decoding runs ahead": self.crowded,
            "its edit list hides frames": self.hidden,
            "it holds several video streams": not self.alone,
        }
        return StreamIndex(
            path=path,
            stream=self.stream_index,
            pts=np.sort(np.array(self.pts if exact else range(self.shown), dtype=np.int64)),
            keys=np.sort(np.array(self.keys, dtype=np.int64)),
            time_base=self.stream.time_base or Fraction(1, 1000),
            rate=float(self.stream.average_rate or 0),
            exact=exact,
            decord_doubt=next((words for words, applies in doubts.items() if applies), None),
        )


def check_file(path: str) -> None:
    """Refuse what is no readable, non-empty regular file. Raises VideoError: missing, empty, undecodable."""
    if not os.path.exists(path):
        raise VideoError("missing", path, "no such file; check the path and that the data set is unpacked")
    if not os.path.isfile(path):
        kind = "a folder" if os.path.isdir(path) else "a pipe or device"
        raise VideoError("undecodable", path, f"is {kind}, expected a video file")
    if os.path.getsize(path) == 0:
        raise VideoError("empty", path, "0 bytes, expected a video file; fetch it again")

"""Small real video files, made with PyAV. Each frame carries its own number, so that a wrong frame is noticed."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BLOCK = 16  # pixels; large enough for the number to survive lossy coding
WIDTH, HEIGHT = 80, 64
FPS = 25
COUNT = 100  # frames of a film unless said otherwise


def draw(number: int) -> np.ndarray:
    """Frame `number`: ten bits as light and dark blocks, then pure colours, then noise of its own."""
    frame = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    for bit in range(10):
        row, column = divmod(bit, WIDTH // BLOCK)
        if number >> bit & 1:
            frame[row * BLOCK : (row + 1) * BLOCK, column * BLOCK : (column + 1) * BLOCK] = 220
    for place, colour in enumerate([(220, 30, 30), (30, 220, 30), (30, 30, 220)]):
        frame[32:48, place * BLOCK : (place + 1) * BLOCK] = colour
    noise = np.random.default_rng(number).integers(0, 255, (4, WIDTH // 4, 3), np.uint8)
    frame[48:] = noise.repeat(4, 0).repeat(4, 1)
    return frame


def number(frame: np.ndarray) -> int:
    """The number that a decoded, upright frame carries."""
    value = 0
    for bit in range(10):
        row, column = divmod(bit, WIDTH // BLOCK)
        inner = frame[row * BLOCK + 5 : row * BLOCK + 11, column * BLOCK + 5 : column * BLOCK + 11]
        value |= int(inner.mean() > 128) << bit
    return value


def numbers(frames: np.ndarray) -> list[int]:
    return [number(frame) for frame in frames]


def film(
    path: Path,
    count: int = COUNT,
    codec: str = "libx264",
    *,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    ticks: list[int] | None = None,
    gop: int = 12,
    b_frames: int | None = None,
    scale: int = 1,
    pixels: str = "yuv420p",
    colorspace: int | None = None,
    color_range: int | None = None,
) -> Path:
    """Write a film of frames 0..count-1. `ticks`: their times in 1/2500 s, else a steady 25 a second."""
    with av.open(str(path), "w", options=container or {}) as out:
        stream = out.add_stream(codec, rate=FPS, options=options or {})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = WIDTH * scale, HEIGHT * scale, pixels, gop
        if b_frames is not None:
            stream.max_b_frames = b_frames
        if colorspace is not None:
            stream.codec_context.colorspace = colorspace
        if color_range is not None:
            stream.codec_context.color_range = color_range
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = base = Fraction(1, FPS * (100 if ticks else 1))
        for i in range(count):
            picture = draw(i).repeat(scale, 0).repeat(scale, 1)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = frame.reformat(format=pixels, dst_colorspace=colorspace, dst_color_range=color_range)
            frame.pts, frame.time_base = (ticks[i] if ticks else i), base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def copy_from(source: Path, path: Path, first: float, start: float, container: dict[str, str] | None = None) -> Path:
    """Copy packets shown from `first` seconds on without decoding; time 0 of the copy is `start` seconds."""
    with av.open(str(source)) as into, av.open(str(path), "w", options=container or {}) as out:
        stream = out.add_stream_from_template(into.streams.video[0])
        for packet in into.demux(video=0):
            if packet.size and float(packet.pts * packet.time_base) >= first - 1e-6:
                shift = round(start / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                out.mux(packet)
    return path


def sound(path: Path, codec: str, *, silent_video: bool = False) -> Path:
    """One second of silence; with `silent_video` next to a video stream without a single frame."""
    with av.open(str(path), "w") as out:
        if silent_video:
            video = out.add_stream("libx264", rate=FPS)
            video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream = out.add_stream(codec, rate=16000)
        layout, kind = ("s16", np.int16) if codec == "pcm_s16le" else ("fltp", np.float32)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), kind), format=layout, layout="mono")
        frame.rate, frame.pts = 16000, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def turned(source: Path, path: Path, degrees: int) -> Path:
    """A copy of an MP4 whose track header asks players to turn the picture clockwise by `degrees`."""
    data = bytearray(source.read_bytes())
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    matrix = struct.pack(">9i", cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30)
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of times, ids and volume
    data[at : at + len(matrix)] = matrix
    path.write_bytes(data)
    return path


def damaged(source: Path, path: Path, start: float, length: int, fill: int | None = 0) -> Path:
    """A copy with `length` bytes from the fraction `start` of the file on overwritten, or inverted (None)."""
    data = bytearray(source.read_bytes())
    at = int(len(data) * start)
    data[at : at + length] = bytes(length) if fill == 0 else bytes(b ^ 0xFF for b in data[at : at + length])
    path.write_bytes(data)
    return path


def first_half(source: Path, path: Path, share: float = 0.5) -> Path:
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path

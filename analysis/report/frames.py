"""The frames of a video again, small, as one picture: what the viewer lays kept and dropped patches over."""

import io
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from PIL import Image

QUALITY = 55
"""Of WebP."""
BYTES_A_PIXEL = 0.2
"""What WebP takes at that quality for frames this small, at most; flat pictures take a tenth."""


@dataclass(frozen=True)
class Sheet:
    """Frames left to right, `columns` in a line; `image` is WebP, empty where the file could not be read."""

    image: bytes
    columns: int
    size: tuple[int, int]  # of one frame: width, height
    note: str = ""  # why there is no image, or what is doubtful about it


def contact_sheet(video: Mapping[str, Any], pixels: int) -> Sheet:
    """The frames that a sample's `video` names, each of at most `pixels`, never enlarged.

    A file that is missing or unreadable gives a sheet without an image, and the reason as its note.
    """
    path, indices = Path(video["path"]), video["indices"]
    columns = math.ceil(math.sqrt(len(indices)))
    try:
        note = _changed(path, video)
        frames = read_frames(path, indices, pixels)
    except (OSError, av.FFmpegError, IndexError, ValueError) as error:
        reason = "is not there any more" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        return Sheet(b"", columns, (1, 1), f"{path.name} {reason}; its frames are left grey")
    width, height = frames[0].size
    sheet = Image.new("RGB", (width * columns, height * math.ceil(len(frames) / columns)))
    for number, frame in enumerate(frames):
        sheet.paste(frame, (number % columns * width, number // columns * height))
    out = io.BytesIO()
    sheet.save(out, "webp", quality=QUALITY, method=4)
    return Sheet(out.getvalue(), columns, (width, height), note)


def _changed(path: Path, video: Mapping[str, Any]) -> str:
    if path.stat().st_size == video["bytes"]:
        return ""
    return f"{path.name} has changed since it was evaluated; its frames may be others"


def read_frames(path: Path, indices: Sequence[int], pixels: int) -> list[Image.Image]:
    """Frames by their number in display order, seeking over what is not asked for.

    Raises OSError and av.FFmpegError for a file that cannot be read, IndexError for a frame that it has not.
    """
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        packets = [(p.pts, p.is_keyframe) for p in container.demux(stream) if p.pts is not None and not p.is_discard]
        times, keys = sorted(time for time, _ in packets), sorted(time for time, key in packets if key)
        wanted = [times[index] for index in indices]
        found: dict[int, Image.Image] = {}
        decoded: Iterator[av.VideoFrame] = iter(())
        position: float = -math.inf
        for time in sorted(set(wanted)):
            place = bisect_right(keys, time)
            if place and keys[place - 1] > position:
                container.seek(time, stream=stream)
                decoded = container.decode(stream)
            for frame in decoded:
                if frame.pts is not None and frame.pts >= time:
                    scale = min(1.0, math.sqrt(pixels / (frame.width * frame.height)))
                    size = (max(1, round(frame.width * scale)), max(1, round(frame.height * scale)))
                    found[time], position = frame.to_image(width=size[0], height=size[1]), frame.pts
                    break
    if lacking := set(wanted) - found.keys():
        raise IndexError(f"{len(lacking)} of {len(indices)} frames were not decoded")
    return [found[time] for time in wanted]

"""The films that the tests of this folder share, made once a session."""

from pathlib import Path

import numpy as np
import pytest
from video.films import COUNT, copy_from, film

_CLOSED = {"x264-params": "scenecut=0"}
_OPEN = {"x264-params": "open-gop=1:scenecut=0"}
_QUIET = "log-level=none:pools=1"
_UNEVEN = np.cumsum(np.random.default_rng(0).integers(20, 400, COUNT)).tolist()  # 8 to 160 ms a frame

FILMS = {
    "plain.mp4": {"options": _CLOSED},
    "index_first.mp4": {"options": _CLOSED, "container": {"movflags": "faststart"}},
    "fragments.mp4": {"options": _CLOSED, "container": {"movflags": "frag_keyframe+empty_moov"}},
    "b_frames.mp4": {"options": _CLOSED, "b_frames": 3, "gop": 30},
    "uneven.mp4": {"options": _CLOSED, "ticks": _UNEVEN},
    "uneven.mkv": {"options": _CLOSED, "ticks": _UNEVEN},
    "h264.mkv": {"options": _CLOSED},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "bt709.mp4": {"options": _CLOSED, "colorspace": 1},
    "full_range.mp4": {"options": _CLOSED, "pixels": "yuvj420p"},
    "ten_bits_full_range.mp4": {"options": _CLOSED, "pixels": "yuv420p10le", "color_range": 2},
    "closed_hevc.mp4": {"codec": "libx265", "options": {"x265-params": f"{_QUIET}:open-gop=0"}},
}
"""Files that decord reads rightly."""

TRAPS = {
    "open_gop.mp4": {"options": _OPEN, "b_frames": 3},
    "open_gop.mkv": {"options": _OPEN, "b_frames": 3},
    "open_hevc.mp4": {"codec": "libx265", "options": {"x265-params": f"{_QUIET}:open-gop=1:bframes=3"}},
    "b_frames.ts": {"b_frames": 2},
    "b_frames.avi": {"b_frames": 2},
    "mpeg1.mpg": {"codec": "mpeg1video", "b_frames": 2},
    "vp8.webm": {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8", "b": "1M"}},
    "sorenson.flv": {"codec": "flv1"},
    "annex_b.h264": {"b_frames": 2},
}
"""Files that decord reads wrongly, in part or not at all, or whose packets are no frame table."""


def _dense(keys: int, b_frames: int) -> dict[str, str]:
    return {"x264-params": f"open-gop=1:scenecut=0:b-adapt=0:min-keyint=1:keyint={keys}:bframes={b_frames}"}


_FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
DENSE = {
    "recovery_points.mkv": {"options": _dense(5, 3), "b_frames": 3},  # no IDR, and yet nothing shown early
    "recovery_points.mp4": {"options": _dense(3, 1), "b_frames": 1},
    "fragments_of_two.mp4": {"gop": 2, "b_frames": 1, "container": _FRAGMENTS},  # no way back to frame 0 by seeking
    "fragments_of_one.mp4": {"codec": "mpeg4", "gop": 1, "b_frames": 1, "container": _FRAGMENTS},
    "fragments_hevc.mp4": {
        "codec": "libx265",
        "container": _FRAGMENTS,
        "options": {"x265-params": f"{_QUIET}:keyint=2:min-keyint=1:bframes=2:open-gop=0"},
    },
}
"""Films of 20 frames whose key frames are so close that seeking goes wrong; found by trying 1200 combinations."""


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every file of `FILMS` and `TRAPS`, and `edit_list.mp4`: 1.52 s cut off without re-encoding."""
    folder = tmp_path_factory.mktemp("films")
    for name, how in (FILMS | TRAPS).items():
        film(folder / name, **how)
    keep_hidden = {"use_editlist": "1", "avoid_negative_ts": "disabled"}
    copy_from(folder / "b_frames.mp4", folder / "edit_list.mp4", first=1.2, start=1.52, container=keep_hidden)
    return folder

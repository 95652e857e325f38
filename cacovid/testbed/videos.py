"""The test bed's videos as H.264 mp4 files, made from seeds into a cache folder when they are missing."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
from tqdm import tqdm

from cacovid.testbed.render import FPS, SIDE, Frames, render
from cacovid.testbed.scene import WORLD_VERSION, make_scene

CACHE_VARIABLE = "CACOVID_CACHE"


def cache_folder() -> Path:
    """Where this world's videos lie: $CACOVID_CACHE, else the user's cache folder of the platform."""
    asked = os.environ.get(CACHE_VARIABLE)
    if asked:
        root = Path(asked).expanduser()
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches" / "cacovid"
    elif sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "cacovid"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cacovid"
    return root / "testbed" / f"world-{WORLD_VERSION}"


def video_path(seed: tuple[int, int]) -> Path:
    """The file of a scene's seed, whether it is there or not."""
    return cache_folder() / str(seed[0]) / f"{seed[1]:06d}.mp4"


def encode(frames: Frames, path: Path) -> None:
    """Write frames (n, SIDE, SIDE, 3) as H.264; one thread, so that the same frames give the same file."""
    with av.open(str(path), "w", format="mp4") as box:
        stream = box.add_stream("libx264", rate=FPS, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        stream.time_base = Fraction(1, FPS)
        stream.codec_context.thread_count = 1
        for picture in frames:
            box.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        box.mux(stream.encode(None))


def make_video(seed: tuple[int, int]) -> Path:
    """The path of a seed's video, which is made first when it is missing.

    It is written beside and renamed, so a half-written file never has the final name and processes that
    make the same video at once do not disturb each other.
    """
    path = video_path(seed)
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".part", dir=path.parent)
    os.close(handle)
    try:
        encode(render(make_scene(seed)), Path(name))
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    return path


def make_videos(seeds: Sequence[tuple[int, int]]) -> list[Path]:
    """Make all missing videos of the seeds, with a progress bar when there is something to make."""
    missing = [seed for seed in seeds if not video_path(seed).exists()]
    for seed in tqdm(missing, desc="Making test-bed videos", unit="video", disable=not missing):
        make_video(seed)
    return [video_path(seed) for seed in seeds]

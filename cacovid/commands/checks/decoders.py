"""Video decoders, tried on a file made for the purpose: FRAMES grey pictures, each brighter than the last."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cacovid.commands.checks.result import Check, reason

FRAMES = 10
HEIGHT, WIDTH = 48, 64  # pixels

Decode = Callable[[Path], np.ndarray]


def check_decoders() -> list[Check]:
    """Write an mp4 with PyAV; read it with PyAV, with decord, and through the suite's reader process."""
    with tempfile.TemporaryDirectory(prefix="cacovid-doctor-") as folder:
        path = Path(folder, "grey.mp4")
        try:
            _write(path)
        except Exception as error:
            get = "pip install --force-reinstall av (its wheels bring libx264)"
            return [Check(name="write H.264", state="problem", detail=reason(error), get=get)]
        lines = [
            Check(name="write H.264", state="ok", detail=f"PyAV wrote {FRAMES} frames of {WIDTH} x {HEIGHT}"),
            _try("PyAV", _pyav, path, "pip install av", required=True),
            # PyAV stands in where decord is missing.
            _try("decord", _decord, path, "pip install decord", required=False),
            _try("reader process", _worker, path, "the lines above say which decoder fails", required=True),
        ]
    return lines


def _write(path: Path) -> None:
    import av

    with av.open(str(path), "w") as box:
        stream = box.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for n in range(FRAMES):
            picture = np.full((HEIGHT, WIDTH, 3), 20 + 20 * n, dtype=np.uint8)
            box.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        box.mux(stream.encode(None))


def _try(name: str, decode: Decode, path: Path, get: str, *, required: bool) -> Check:
    try:
        frames = decode(path)
    except ImportError as error:
        return Check(name=name, state="missing", detail=reason(error), get=get, required=required)
    except Exception as error:  # decoders raise their own kinds
        return Check(name=name, state="problem", detail=reason(error), get=get, required=required)
    light = frames.reshape(len(frames), -1).mean(axis=1) if len(frames) else np.zeros(0)
    expected = (FRAMES, HEIGHT, WIDTH, 3)
    if frames.shape != expected or (np.diff(light) < 10).any():
        detail = f"gave frames of shape {frames.shape}, expected {expected}, each brighter than the last"
        return Check(name=name, state="problem", detail=detail, get=get, required=required)
    return Check(name=name, state="ok", detail=f"read the {FRAMES} frames back in order", required=required)


def _pyav(path: Path) -> np.ndarray:
    import av

    with av.open(str(path)) as box:
        frames = [frame.to_ndarray(format="rgb24") for frame in box.decode(video=0)]
    return np.stack(frames)


def _decord(path: Path) -> np.ndarray:
    import decord

    reader = decord.VideoReader(str(path))
    return np.stack([reader[n].asnumpy() for n in range(len(reader))])


def _worker(path: Path) -> np.ndarray:
    from cacovid.video import VideoWorker

    with VideoWorker() as worker:
        return worker.read(path, FRAMES).frames

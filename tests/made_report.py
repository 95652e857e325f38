"""Runs with what the report's viewer shows: real videos, questions, kept, merged and evidence positions."""

import json
from base64 import b64encode
from pathlib import Path

import av
import numpy as np

from made_runs import write_run

FRAMES, SIDE = 4, 2
GRID = [FRAMES, SIDE, SIDE]
"""16 video tokens: four frames of 2 x 2 patches."""
INDICES = [0, 5, 10, 15]
DROPPED_BY_CACOVID = 3
"""The one position of frame 0 that no method but "all tokens" keeps or merges at r = .25."""


def make_video(path: Path, frames: int = 16, side: int = 64, key: int = 6) -> Path:
    """Frame n is of one grey, 10 + 15 n; a key frame every `key`."""
    with av.open(str(path), "w") as box:
        stream = box.add_stream("libx264", rate=4, options={"g": str(key), "bf": "2", "crf": "10"})
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            picture = np.full((side, side, 3), 10 + 15 * number, np.uint8)
            box.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        box.mux(stream.encode())
    return path


def bits(positions: list[int]) -> str:
    flags = np.zeros(16, bool)
    flags[positions] = True
    return b64encode(np.packbits(flags, bitorder="little").tobytes()).decode()


def write_report_runs(root: Path) -> Path:
    """All tokens, CaCoVID and random at r = .5 and .25, on four questions of two videos; returns the runs' folder.

    Right: all tokens 1, 1, 1, 0; CaCoVID 1, 1, 1, 1 at r = .25 and 1, 1, 0, 0 at .5; random 0, 1, 0, 0.
    """
    root.mkdir(parents=True, exist_ok=True)
    videos = [make_video(root / f"video {number}.mp4") for number in range(2)]
    runs = root / "runs"
    _write(runs, videos, "full", 1.0, [1, 1, 1, 0], list(range(16)), None)
    for ratio in (0.5, 0.25):
        kept = list(range(0, 16, 2)) if ratio == 0.5 else [0, 4, 8, 12]
        merged = None if ratio == 0.5 else bits([1, 2])
        _write(runs, videos, "cacovid", ratio, [1, 1, ratio < 0.5, ratio < 0.5], kept, merged)
        _write(runs, videos, "random", ratio, [0, 1, 0, 0], [position + 1 for position in kept], None)
    return runs


def _write(
    root: Path, videos: list[Path], method: str, retention: float, right: list[int], kept: list[int], merged: str | None
) -> None:
    kinds = ["color", "count"]
    metrics = [{"accuracy": {"kind": kinds[number % 2], "video_id": f"v{number // 2}"}} for number in range(len(right))]
    folder = write_run(
        root,
        f"{method}-{retention}",
        method,
        [float(value) for value in right],
        retention=retention,
        metrics=metrics,
        setup={"task": "evidence_vqa", "frames": FRAMES},
    )
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        video = videos[number // 2]
        line |= {
            "score": float(right[number]),
            "prediction": f"{method} says <b>{number}</b>",
            "question": f"What is number {number}?\nA. this\nB. that",
            "video": {"path": str(video), "sha256": f"v{number // 2}", "bytes": video.stat().st_size}
            | {"indices": INDICES, "total_frames": 16},
            "grid": GRID,
            "kept": kept,
            "merged": merged,
            "evidence": [0, 5],
        }
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

"""What is timed: video files made on the spot, and prompts of random words; every repeat has its own."""

import random
import string
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from cacovid.backbones import Backbone

RATE = 8  # frames a second of the files


@dataclass(frozen=True)
class Question:
    """One video file and one chat-templated prompt."""

    path: Path
    prompt: str


def make_inputs(
    backbone: Backbone,
    folder: Path,
    count: int,
    batch: int,
    frames: int,
    *,
    words: int,
    size: tuple[int, int],
    seed: int,
) -> list[list[Question]]:
    """`count` batches of `batch` questions.

    There are `count` files, at least two seconds longer than `frames` frames. A batch takes files of several numbers,
    so that no two batches are the same; prompts are all different.

    Args:
        words: prompt tokens around the video, chat template included.
        size: (height, width) in pixels.
    """
    paths = [folder / f"{seed}_{number}.mp4" for number in range(count)]
    for number, path in enumerate(tqdm(paths, desc="videos", unit="file", leave=False)):
        if not path.exists():
            write_video(path, frames + 2 * RATE, size, seed=1000 * seed + number)
    stride = 1 + count // max(batch, 1)
    return [
        [
            Question(paths[(i + j * stride) % count], random_prompt(backbone, words, f"{seed}.{i}.{j}"))
            for j in range(batch)
        ]
        for i in range(count)
    ]


def write_video(path: Path, frames: int, size: tuple[int, int], seed: int) -> None:
    """H.264 of smooth noise that drifts, with a cut in the middle; written beside and renamed."""
    height, width = size
    generator = np.random.default_rng(seed)
    part = path.with_name(f"part_{path.name}")
    scenes = [_smooth(generator, height, width) for _ in range(2)]
    with av.open(str(part), "w") as box:
        stream = box.add_stream("libx264", rate=RATE, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for n in range(frames):
            picture = np.roll(scenes[2 * n // frames], (n, 2 * n), axis=(0, 1))
            box.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        box.mux(stream.encode(None))
    part.rename(path)


def _smooth(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    """uint8 (height, width, 3): blocks of 8 pixels with a little grain."""
    blocks = generator.integers(0, 240, (-(-height // 8), -(-width // 8), 3))
    grain = generator.integers(0, 16, (height, width, 3))
    return (blocks.repeat(8, 0).repeat(8, 1)[:height, :width] + grain).astype(np.uint8)


def random_prompt(backbone: Backbone, tokens: int, seed: str) -> str:
    """A chat prompt of random words that has at least `tokens` tokens besides the video, and stops there."""
    generator, text = random.Random(seed), ""
    while True:
        content = [{"type": "video"}, {"type": "text", "text": text or "?"}]
        prompt = backbone.template([{"role": "user", "content": content}])
        if sum(map(len, backbone.prompt_ids(prompt))) >= tokens:
            return prompt
        text += generator.choice(string.ascii_lowercase) + (" " if generator.random() < 0.2 else "")

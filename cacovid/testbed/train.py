"""Train a test bed's model from nothing: `python -m cacovid.testbed.train [--family F] [--out DIR] [--stages ...]`.

Stop it whenever you like: the same command goes on where it was.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from cacovid.testbed.curve import draw_curve
from cacovid.testbed.data import split_seeds
from cacovid.testbed.families import FAMILIES, WIDTH, Family
from cacovid.testbed.join import features, train_align, train_join
from cacovid.testbed.language import train_language
from cacovid.testbed.probes import Probes
from cacovid.testbed.scene import make_scene
from cacovid.testbed.sight import load_pixels, train_sight
from cacovid.testbed.symbols import Symbols, label_batch
from cacovid.testbed.training import use_training_attention, worker
from cacovid.testbed.videos import make_videos

STEPS: Final = {"language": 2000, "sight": 2000, "align": 600, "join": 1200}
"""Stage -> optimiser steps, in the order in which the stages run, where a family has none of its own."""


class Trainer:
    """The stages in order. A stage that an earlier run finished in the work folder is only loaded."""

    def __init__(
        self, family: Family, work: Path, steps: dict[str, int], videos: int | None, device: torch.device
    ) -> None:
        self.family, self.work, self.steps, self.videos, self.device = family, work, steps, videos, device
        self.processor = family.build_processor()
        self.model = family.build_model(self.processor)
        self.model.to(device)  # type: ignore[arg-type]
        use_training_attention(self.model)
        self.probes = Probes(self.processor.tokenizer, WIDTH).to(device)
        self.symbols = Symbols(self.processor.tokenizer, WIDTH).to(device)
        self.seeds = split_seeds("train", videos)

    def pixels(self) -> torch.Tensor:
        """The train videos as the vision tower sees them, which `prepare` has stored."""
        return torch.load(self.work / "pixels.pt", weights_only=True, mmap=True)

    def language(self) -> None:
        """The LLM, on symbols."""
        rest = (self.symbols, self.probes, self.work, self.steps["language"], self.device)
        train_language(self.family, self.model, self.processor.tokenizer, *rest)

    def sight(self) -> None:
        """The vision tower, on labels."""
        labels = label_batch([make_scene(seed) for seed in self.seeds])
        rest = (self.pixels(), labels, self.work, self.steps["sight"], self.device)
        train_sight(self.family, self.model, *rest)

    def align(self) -> None:
        """Tower and projector, on the LLM's symbols."""
        labels = label_batch([make_scene(seed) for seed in self.seeds])
        rest = (self.pixels(), labels, self.work, self.steps["align"], self.device)
        train_align(self.family, self.model, self.symbols, *rest)

    def join(self) -> None:
        """The LLM, on the tower's tokens."""
        # Each worker reads its own part of the videos.
        rank, workers = worker()
        done = (self.work / "join.pt").exists()
        pixels = self.pixels()[rank::workers]
        stored = torch.empty(0) if done else features(self.family, self.model, pixels, self.device)
        scenes = [make_scene(seed) for seed in self.seeds[rank::workers]]
        train_join(
            self.family,
            self.model,
            self.processor.tokenizer,
            self.probes,
            stored,
            scenes,
            self.work,
            self.steps["join"],
            self.device,
        )

    def save(self, out: Path) -> None:
        """Write the checkpoint folder: weights, configuration, tokenizer and processor files."""
        self.model.model.language_model.config._attn_implementation = "sdpa"
        self.model.save_pretrained(out)
        self.processor.save_pretrained(out)


def _work(rank: int, workers: int, meeting: str, options: argparse.Namespace, steps: dict[str, int]) -> None:
    """One worker: the stages up to the last one asked for, and for the first worker the checkpoint."""
    if workers > 1:
        # One thread a worker: two threads on so small a model mostly wait for each other.
        torch.set_num_threads(1)
        torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=workers)
    trainer = Trainer(FAMILIES[options.family], options.work, steps, options.videos, torch.device(options.device))
    for name in STEPS:
        if name not in options.stages and not (options.work / f"{name}.pt").exists():
            break
        getattr(trainer, name)()
    if worker()[0] == 0:
        trainer.save(options.out)
    if workers > 1:
        torch.distributed.destroy_process_group()


def prepare(family: Family, work: Path, videos: int | None) -> None:
    """Make the train videos and store what the vision tower sees of them, unless that is there."""
    path = work / "pixels.pt"
    if not path.exists():
        values = load_pixels(family, make_videos(split_seeds("train", videos)), family.build_processor())
        torch.save(values, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)


def write_log(work: Path, path: Path) -> None:
    """Gather the stages' logs into one JSONL file."""
    logs = [work / f"{name}.jsonl" for name in STEPS]
    path.write_text("".join(log.read_text(encoding="utf-8") for log in logs if log.exists()), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(
        prog="python -m cacovid.testbed.train", description=__doc__.split("\n")[0] if __doc__ else None
    )
    cuda = torch.cuda.is_available()
    parser.add_argument("--family", choices=tuple(FAMILIES), default="llava_ov")
    parser.add_argument("--out", type=Path, default=Path("outputs/testbed"), help="checkpoint folder to write")
    parser.add_argument("--work", type=Path, help="folder for the stages' files (default: OUT-training)")
    parser.add_argument("--videos", type=int, help="train videos to use (default: all)")
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--workers", type=int, help="training processes (default: 1 on a GPU, 2 on CPUs)")
    parser.add_argument("--stages", nargs="+", choices=tuple(STEPS), default=tuple(STEPS), help="stages to train")
    parser.add_argument("--steps", type=json.loads, default={}, help="other step counts, as JSON")
    options = parser.parse_args(arguments)
    if unknown := set(options.steps) - set(STEPS):
        parser.error(f"--steps names {', '.join(sorted(unknown))}; the stages are {', '.join(STEPS)}")
    options.work = options.work or options.out.with_name(options.out.name + "-training")
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    prepare(FAMILIES[options.family], options.work, options.videos)
    on_gpu = torch.device(options.device).type != "cpu"
    workers = options.workers or (1 if on_gpu else min(2, os.cpu_count() or 1))
    with tempfile.TemporaryDirectory() as folder:
        rest = (workers, str(Path(folder) / "meeting"), options, STEPS | FAMILIES[options.family].steps | options.steps)
        if workers == 1:
            _work(0, *rest)
        else:
            # Told to stop, take the workers along: they are daemons of a process that ends in the ordinary way.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
            torch.multiprocessing.spawn(_work, args=rest, nprocs=workers, daemon=True)
    write_log(options.work, options.out / "training.jsonl")
    draw_curve(options.out / "training.jsonl", options.out / "training.png")


if __name__ == "__main__":
    main()

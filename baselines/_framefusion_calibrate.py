"""The similarity threshold by the authors' rule: `python -m baselines.framefusion --split train --videos 32`.

Reads test-bed videos, looks at the LLM's input alone (the LLM does not run), and prints the mean over the videos of the
median similarity of adjacent frames. Never use the test split for it: the threshold is a hyper-parameter.
"""

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from baselines._framefusion_calls import median_similarity
from cacovid.backbones import Backbone, VideoRequest, load_backbone
from cacovid.testbed.data import load_split
from cacovid.video import read_clip


def medians(backbone: Backbone, split: str, videos: int) -> Tensor:
    """Median similarity of each of the first `videos` videos of a test-bed split."""
    paths = {document["video"]: document["prompt"] for document in load_split(split, videos)}
    found = []
    for path, text in tqdm(paths.items(), desc="Median similarity", unit="video"):
        clip = read_clip(path, backbone.frames)
        prompt = backbone.template([{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": text}]}])
        video = backbone.encode([VideoRequest(clip.frames, prompt, clip.sha256, clip.rate)], frozenset())[0]
        found.append(median_similarity(video.features))
    return torch.tensor(found)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m baselines.framefusion", description=__doc__.split("\n")[0])
    parser.add_argument("--pretrained", default="testbed", help="folder, hub id or a test bed (default: testbed)")
    parser.add_argument("--split", choices=("train", "validation"), default="train")
    parser.add_argument("--videos", type=int, default=32, help="the first so many videos (default: 32)")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    backbone = load_backbone("auto", options.pretrained, device=options.device)
    found = medians(backbone, options.split, options.videos)
    spread = f"median of each video {found.min():.5f} .. {found.max():.5f}"
    print(f"similarity={found.mean():.5f}  ({len(found)} {options.split} videos, {spread})")

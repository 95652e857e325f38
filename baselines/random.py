"""Random tokens: the floor that every method has to beat."""

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from cacovid.method import ScoreMethod
from cacovid.records import VideoTokens


@dataclass(frozen=True, kw_only=True)
class Random(ScoreMethod):
    """Keep tokens uniformly at random over the whole video.

    Each clip has its own draw, fixed by (seed, clip): the model's random state is neither read nor moved, CPU
    and accelerator agree, and what is kept at a low retention is kept at every higher one. One seed is one
    sample of a distribution: report several.
    """

    seed: int = 0

    source: ClassVar[str] = "no paper: reference point of every table"

    def score(self, video: VideoTokens) -> Float[Tensor, "F S"]:
        digest = hashlib.sha256(f"{self.seed}/{video.clip}".encode()).digest()
        generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big"))
        ranks = torch.randperm(len(video), generator=generator)  # a permutation: no ties
        return ranks.view(video.features.shape[:2]).to(video.features.device, torch.float32)

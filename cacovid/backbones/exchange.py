"""What goes into a backbone, and what comes out of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from cacovid.budget import Spent
from cacovid.records import Compressed

Pixels = Mapping[str, Tensor]
"""What a stock video processor makes of a video's frames, by the processor's own names."""


@dataclass(frozen=True, slots=True, eq=False)
class VideoRequest:
    """One video and one prompt."""

    frames: np.ndarray  # uint8 (F, height, width, 3), RGB
    prompt: str  # chat-templated text with exactly one video placeholder
    clip: str  # stable id of the video's content, e.g. the file's SHA-256
    rate: float = 0.0  # frames read for each second of the video; 0.0 unknown


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """What the vision side made of a video, whatever is asked about it. Contiguous, on the model's device."""

    features: Float[Tensor, "F H W D"]  # projected, pooled patches, in the LLM's input space
    captured: Mapping[str, Tensor] = field(default_factory=dict)  # as `VideoTokens`


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What came back for one request."""

    text: str
    ids: list[int]  # decoded tokens, end token included
    spent: Spent
    seconds: dict[str, float]  # stage -> seconds; a batch's prefill and decode count whole for each sample
    grid: tuple[int, int]  # (H, W) video tokens a frame
    compressed: Compressed  # what entered the LLM
    kept: Int64[Tensor, " K"]  # flat positions still there after the last layer's cut
    logits: list[Float[Tensor, " V"]] = field(default_factory=list)  # float32, one a decoded token, if asked for

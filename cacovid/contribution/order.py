"""A method's order of tokens, read off what it keeps: no method has to show its scores."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cacovid.backbones.base import Backbone, compress_video
from cacovid.method import Method
from cacovid.records import VideoTokens
from cacovid.registry import build_method

LADDER = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Retention ratios at which a method is asked."""


@torch.inference_mode()
def kept_by(backbone: Backbone, method: Method, video: VideoTokens) -> Int64[Tensor, " K"]:
    """Flat positions that are still there after the last layer's cut."""
    budget = method.budget(len(video))
    sequence = backbone.sequence(video, compress_video(method, video, budget), budget, method)
    if "in-LLM" in method.stages:
        backbone.decoder.prefill([sequence])
    return sequence.flat


def order_of(
    backbone: Backbone, name: str, settings: dict[str, object], video: VideoTokens, retention: float
) -> tuple[Float[Tensor, " N"], set[int]]:
    """At how many rungs of the ladder each token is kept (higher = kept longer), and what is kept at `retention`.

    A method that ranks tokens once keeps nested sets, whose order this gives back up to ties between two rungs.
    """
    score = torch.zeros(len(video))
    own: set[int] = set()
    for rung in sorted({*LADDER, retention}):
        kept = kept_by(backbone, build_method(name, retention=rung, **settings), video).cpu()
        score[kept] += 1
        if rung == retention:
            own = set(kept.tolist())
    return score, own

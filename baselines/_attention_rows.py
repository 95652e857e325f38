"""Scores from a few attention rows of the LLM, and what a single cut behind them computes and costs."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cacovid.errors import MethodError
from cacovid.flops import DecoderShape
from cacovid.records import VideoTokens
from cacovid.state import PrefillState

ROWS_AT_ONCE = 128
"""Query rows a look-up: 28 heads x 128 rows over 6400 keys are 92 MB of float32, and the whole matrix is 4.6 GB."""


def row_scores(state: PrefillState, rows: Int64[Tensor, " Q"]) -> Float[Tensor, " K"]:
    """Attention that the current video tokens get from the prompt `rows` in the last layer that ran, float32: mean
    over heads and rows. The softmax is over everything that a row sees; never the whole matrix at once."""
    parts = [state.attention(part).mean(1).sum(0) for part in rows.split(ROWS_AT_ONCE)]  # (Q, H, K) -> (K,) each
    return torch.stack(parts).sum(0) / len(rows)


def scoring_flops(rows: int, video: VideoTokens, shape: DecoderShape) -> int:
    """What `row_scores` of so many rows costs before any token was cut."""
    parts = [min(ROWS_AT_ONCE, rows - begin) for begin in range(0, rows, ROWS_AT_ONCE)]
    return sum(shape.attention_rows(part, video.rows) for part in parts)


def rows_that_see(state: PrefillState) -> Int64[Tensor, " Q"]:
    """Video rows and all after them. Rows before the video attend to none of it: they would only scale the mean."""
    return torch.arange(state.span.start, len(state.positions), device=state.positions.device)


def check_depth(layer: int, layers: int) -> None:
    """Raise MethodError unless a cut before `layer` has a layer before it and one behind it in this model."""
    if not 1 <= layer < layers:
        raise MethodError(f"layer={layer}, expected 1 <= layer < {layers}: this model has {layers} decoder layers")


def schedule_from(layer: int, total: int, kept: int, layers: int) -> list[int]:
    """Video tokens in each layer for a cut from `total` to `kept` before `layer`."""
    return [total] * min(layer, layers) + [kept] * (layers - layer)

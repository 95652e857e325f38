"""Fewer frames: what one gets for free by lowering the frame count."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from cacovid.method import Method
from cacovid.records import Compressed, VideoTokens
from cacovid.select import evenly_spaced


@dataclass(frozen=True, kw_only=True)
class FewerFrames(Method):
    """Keep whole, evenly spaced frames, as lowering the frame count would.

    m = floor(budget / S) frames at round(linspace(0, F - 1, m)). What is left of the budget goes to evenly
    spaced tokens of one more frame, the one farthest from those kept (the earlier of equals); below one frame,
    of the middle frame. With compact positions and `partial=False` the LLM reads what the stock model reads
    when it is given only these frames.
    """

    partial: bool = True  # False: whole frames only (at least one); misses the budget by less than a frame

    source: ClassVar[str] = "no paper: reference point of every table"

    def slack(self, video: VideoTokens) -> int:
        if self.partial:
            return 0
        budget = self.budget(len(video))
        return abs(self._whole(video, budget) * video.tokens_per_frame - budget)

    def _whole(self, video: VideoTokens, budget: int) -> int:
        """Number of frames kept whole."""
        whole = budget // video.tokens_per_frame
        return whole if self.partial else max(whole, 1)

    def compress(self, video: VideoTokens, budget: int) -> Compressed:
        size = video.tokens_per_frame
        whole = self._whole(video, budget)
        frames = evenly_spaced(video.frames, whole)  # (m,)
        index = (frames[:, None] * size + torch.arange(size)).flatten()
        if self.partial and (rest := budget - whole * size):
            distance = (torch.arange(video.frames)[:, None] - frames).abs()  # (F, m)
            frame = int(distance.amin(1).argmax()) if whole else (video.frames - 1) // 2
            index = torch.cat([index, frame * size + evenly_spaced(size, rest)]).sort().values
        return Compressed.keep(video, index.to(video.features.device))

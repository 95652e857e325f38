"""Sizes of published models, and a video of any size: for figures without a checkpoint."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cacovid.flops import DecoderShape, VisionShape

if TYPE_CHECKING:
    from cacovid.records import VideoTokens

TEXT = 100
"""Prompt tokens around the video; the newline token comes on top."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """An LLaVA-OneVision: its LLM, its vision tower, its frames."""

    decoder: DecoderShape
    vision: VisionShape
    frames: int = 32  # that it reads unless told otherwise

    @property
    def side(self) -> int:
        """Of the grid of video tokens: the tower's, pooled by two."""
        return (round(self.vision.patches**0.5) + 1) // 2

    @classmethod
    def from_config(cls, config: Any) -> "Sizes":
        """From a checkpoint's config."""
        decoder = DecoderShape.from_config(config.text_config)
        return cls(decoder, VisionShape.from_config(config), getattr(config, "cacovid_frames", None) or 32)


def _with_siglip(decoder: DecoderShape) -> Sizes:
    """With SigLIP-so400m at 384 pixels, less its last layer, as LLaVA-OneVision has it."""
    vision = VisionShape(
        layers=26, width=1152, feed_forward=4304, patches=27**2, patch_inputs=3 * 14**2, llm_width=decoder.width
    )
    return Sizes(decoder, vision)


LLAVA_ONEVISION = {
    "qwen2-7b": _with_siglip(DecoderShape(28, 3584, 28, 4, 128, 18944, 152064)),
    "qwen2-0.5b": _with_siglip(DecoderShape(24, 896, 14, 2, 64, 4864, 151936)),
}
"""LLaVA-OneVision by the name of its LLM."""


def synthetic_video(frames: int, side: int, width: int, seed: int = 0) -> "VideoTokens":
    """Noise features that change slowly, with a cut in the middle: some methods' counts hang on the content."""
    import torch

    from cacovid.records import VideoTokens

    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    size = side * side
    scenes = noise(2, size, width)[torch.arange(frames) * 2 // frames]  # (F, S, D)
    steps = 0.3 * noise(1, size, 1).abs() * noise(frames, size, width)
    attention = noise(frames, size).softmax(-1)
    return VideoTokens(
        features=scenes + steps,
        grid=(side, side),
        prefix=noise(TEXT // 2, width),
        newline=noise(1, width),
        suffix=noise(TEXT - TEXT // 2, width),
        question=slice(0, TEXT // 4),
        clip="synthetic",
        captured={
            "received_attention": attention,
            "keys": noise(frames, size, 16, 8),
            "patches": noise(frames, (2 * side - 1) ** 2, 32),
        },
    )

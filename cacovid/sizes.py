"""Sizes of published models, and a video of any size: for figures without a checkpoint."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cacovid.flops import DecoderShape, SiglipShape, VisionShape, WindowedShape

if TYPE_CHECKING:
    from cacovid.records import VideoTokens

TEXT = 100
"""Prompt tokens around the video; the newline token comes on top."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """A video LLM: its LLM, its vision tower, and what it makes of a video."""

    decoder: DecoderShape
    vision: VisionShape
    grid: tuple[int, int]  # (H, W) video tokens a frame
    frames: int = 32  # that it reads unless told otherwise
    merged_frames: int = 1  # frames of the video that are one frame of tokens

    def token_frames(self, frames: int) -> int:
        """F, frames of tokens, for so many frames of a video."""
        return -(-frames // self.merged_frames)

    @classmethod
    def from_config(cls, config: Any) -> "Sizes":
        """From the config of a LLaVA-OneVision checkpoint."""
        decoder, vision = DecoderShape.from_config(config.text_config), SiglipShape.from_config(config)
        return cls(decoder, vision, _pooled(vision), getattr(config, "cacovid_frames", None) or 32)


def _pooled(vision: SiglipShape) -> tuple[int, int]:
    """The tower's grid, pooled by two, rounded up."""
    side = (round(vision.patches**0.5) + 1) // 2
    return side, side


def _with_siglip(decoder: DecoderShape) -> Sizes:
    """With SigLIP-so400m at 384 pixels, less its last layer, as LLaVA-OneVision has it."""
    vision = SiglipShape(
        layers=26, width=1152, feed_forward=4304, patches=27**2, patch_inputs=3 * 14**2, llm_width=decoder.width
    )
    return Sizes(decoder, vision, _pooled(vision))


def _with_windows(decoder: DecoderShape) -> Sizes:
    """With Qwen2.5-VL's tower, on a video of 16:9 at 256 * 28^2 pixels a frame: 12 x 21 tokens every two frames."""
    vision = WindowedShape(
        layers=32,
        full_layers=4,
        width=1280,
        feed_forward=3420,
        window=4,
        merge=2,
        patch_inputs=3 * 2 * 14**2,
        llm_width=decoder.width,
    )
    return Sizes(decoder, vision, (12, 21), merged_frames=2)


SIZES = {
    "qwen2-7b": _with_siglip(DecoderShape(28, 3584, 28, 4, 128, 18944, 152064)),
    "qwen2-0.5b": _with_siglip(DecoderShape(24, 896, 14, 2, 64, 4864, 151936)),
    "qwen2.5-vl-3b": _with_windows(DecoderShape(36, 2048, 16, 2, 128, 11008, 151936)),
    "qwen2.5-vl-7b": _with_windows(DecoderShape(28, 3584, 28, 4, 128, 18944, 152064)),
}
"""Video LLMs by the name of their LLM: LLaVA-OneVision on Qwen2, and Qwen2.5-VL."""


def synthetic_video(frames: int, grid: int | tuple[int, int], width: int, seed: int = 0) -> "VideoTokens":
    """Noise features that change slowly, with a cut in the middle: some methods' counts hang on the content.

    `grid`: (H, W), or the side of a square.
    """
    import torch

    from cacovid.records import VideoTokens

    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    rows, columns = grid if isinstance(grid, tuple) else (grid, grid)
    size = rows * columns
    scenes = noise(2, size, width)[torch.arange(frames) * 2 // frames]  # (F, S, D)
    steps = 0.3 * noise(1, size, 1).abs() * noise(frames, size, width)
    attention = noise(frames, size).softmax(-1)
    return VideoTokens(
        features=scenes + steps,
        grid=(rows, columns),
        prefix=noise(TEXT // 2, width),
        newline=noise(1, width),
        suffix=noise(TEXT - TEXT // 2, width),
        question=slice(0, TEXT // 4),
        clip="synthetic",
        captured={
            "received_attention": attention,
            "keys": noise(frames, size, 16, 8),
            "patches": noise(frames, (2 * rows - 1) * (2 * columns - 1), 32),
        },
    )

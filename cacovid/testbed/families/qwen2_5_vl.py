"""Qwen2.5-VL: a tower with windows, 2 x 2 patches and two frames a token, M-RoPE; 32 frames, two a moment."""

from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from cacovid.testbed.families.base import IMAGE_SIZE, PATCH_SIZE, WIDTH, Family, Places, Wrapping, text_settings
from cacovid.testbed.scene import CELLS, GRID, MOMENTS
from cacovid.testbed.tokenizer import build_tokenizer

SIDE: Final = IMAGE_SIZE // PATCH_SIZE
"""Patches in a row."""
MERGE: Final = 2
PAIR: Final = 2
"""Frames a temporal patch."""
TOKENS_PER_SECOND: Final = 4
"""Of the temporal axis: 32 frames of a video of four seconds then have their pairs one id apart, 0 to 15."""
MARKS: Final = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif part['type'] == 'video' %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""Parts in the order given and a system message by default, as the published checkpoints' template lays them out."""


def _video_places() -> NDArray[np.int64]:
    """Moment, row and column of every video token, (3, VIDEO_TOKENS)."""
    return np.stack(np.meshgrid(np.arange(MOMENTS), np.arange(GRID), np.arange(GRID), indexing="ij")).reshape(3, -1)


class Qwen2_5Vl(Family):
    """The published checkpoints' layout."""

    name = "qwen2_5_vl"
    model_class = Qwen2_5_VLForConditionalGeneration
    channels = 3 * PAIR
    frames = MOMENTS * PAIR
    compacts = False  # a grid's positions have no gaps that could be closed
    chat = Wrapping(
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>",
        "<|vision_end|>",
        "<|im_end|>\n<|im_start|>assistant\n",
    )
    habits = (
        Wrapping("<|im_start|>user\n<|vision_start|>", "<|vision_end|>", chat.tail),
        Wrapping(chat.head, "<|vision_end|>\n", chat.tail),
    )
    # The text behind goes on after the longer side of a frame, also where the video's times run past it.
    places = Places(_video_places(), GRID, newline=False)
    steps: ClassVar = {"language": 3000, "join": 2000}  # direction and count come later than in the other family

    def build_processor(self) -> Qwen2_5_VLProcessor:
        settings: dict[str, Any] = {
            "patch_size": PATCH_SIZE,
            "merge_size": MERGE,
            "temporal_patch_size": PAIR,
            "size": {"shortest_edge": IMAGE_SIZE**2, "longest_edge": IMAGE_SIZE**2},  # areas, whatever they are called
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        }
        return Qwen2_5_VLProcessor(
            image_processor=Qwen2VLImageProcessor(**settings),
            video_processor=Qwen2VLVideoProcessor(**settings),
            tokenizer=build_tokenizer(*MARKS[:2], image_token=MARKS[2], video_token=MARKS[3]),
            chat_template=CHAT_TEMPLATE,
        )

    def build_config(self, processor: Qwen2_5_VLProcessor) -> Qwen2_5_VLConfig:
        tokenizer = processor.tokenizer
        start, end, image, video = tokenizer.convert_tokens_to_ids(list(MARKS))
        return Qwen2_5_VLConfig(  # type: ignore[call-arg]
            vision_config={
                "depth": 4,
                "hidden_size": 128,
                "intermediate_size": 384,
                "num_heads": 4,
                "out_hidden_size": WIDTH,
                "patch_size": PATCH_SIZE,
                "spatial_merge_size": MERGE,
                "temporal_patch_size": PAIR,
                "window_size": 3 * MERGE * PATCH_SIZE,  # 3 x 3 of a frame's 5 x 5 tokens
                "fullatt_block_indexes": [1, 3],
                "tokens_per_second": TOKENS_PER_SECOND,
            },
            text_config=text_settings(
                tokenizer,
                mrope_section=[4, 6, 6],  # 2 : 3 : 3, as the published ones
                # Rows and columns have the low frequencies, which at 10000 turn by 0.0002 to 0.1 a cell;
                # docs/testbed.md tells what the smaller base changed. Positions stay below 150 here.
                rope_theta=30.0,
            ),
            tie_word_embeddings=True,
            vision_start_token_id=start,
            vision_end_token_id=end,
            image_token_id=image,
            video_token_id=video,
            cacovid_frames=self.frames,  # how many frames the model was trained to read
            cacovid_pixels=[IMAGE_SIZE**2, IMAGE_SIZE**2],
        )

    def pixels(self, processor: Qwen2_5_VLProcessor, frames: NDArray[np.uint8]) -> Tensor:
        channels_first = torch.from_numpy(frames).permute(0, 3, 1, 2)
        out = processor.video_processor(
            videos=[channels_first], do_sample_frames=False, cap_pixels_per_frame=False, return_tensors="pt"
        )
        return unpatchify(out["pixel_values_videos"])

    def frame_tokens(self, model: Any, pixels: Tensor) -> Tensor:
        grid = torch.tensor([[len(pixels), SIDE, SIDE]], device=pixels.device)
        tokens = model.model.get_video_features(patchify(pixels), grid, return_dict=True).pooler_output[0]
        return tokens.view(len(pixels), CELLS, -1)

    def sight(self, model: Any) -> dict[str, nn.Module]:
        return {"tower": model.model.visual}  # its merger is the projector

    def last_layer(self, model: Any) -> tuple[nn.Module, str]:
        return model.model.visual.merger.mlp, "2"


# A temporal patch as axes: its place in time, rows and columns of tokens (G) and of patches in a token (M), and in a
# patch the frame, the channel, rows and columns.
_PATCHED: Final = (-1, GRID, GRID, MERGE, MERGE, 3, PAIR, PATCH_SIZE, PATCH_SIZE)  # n G G M M C T p p
_PICTURE: Final = (-1, PAIR, 3, GRID, MERGE, PATCH_SIZE, GRID, MERGE, PATCH_SIZE)  # n T C G M p G M p


def patchify(pixels: Tensor) -> Tensor:
    """Pairs of frames (n, 2 * 3, 80, 80) as the rows that the video processor makes of them, (n * 100, 384)."""
    return pixels.reshape(_PICTURE).permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(len(pixels) * SIDE**2, -1)


def unpatchify(rows: Tensor) -> Tensor:
    """The pairs of frames (n, 2 * 3, 80, 80) that rows (n * 100, 384) of the video processor were made of."""
    return rows.reshape(_PATCHED).permute(0, 6, 5, 1, 3, 7, 2, 4, 8).reshape(-1, PAIR * 3, IMAGE_SIZE, IMAGE_SIZE)


QWEN2_5_VL: Final = Qwen2_5Vl()

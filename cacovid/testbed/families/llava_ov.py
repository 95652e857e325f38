"""LLaVA-OneVision: SigLIP, a projector, pooling to 5 x 5 tokens a frame, Qwen2; sixteen frames, one a moment."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    Qwen2Config,
    SiglipVisionConfig,
)

from cacovid.testbed.families.base import IMAGE_SIZE, PATCH_SIZE, Family, Places, Wrapping, text_settings
from cacovid.testbed.scene import CELLS, MOMENTS
from cacovid.testbed.tokenizer import build_tokenizer

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% if message['content'] is string %}{{ '\\n' + message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'video' %}{{ '<video>\\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ '\\n' + part['text'] }}{% endfor %}"
    "{% endif %}"
    "{{ '<|im_end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""Media first, then the text, as the published checkpoints' template lays them out."""


class LlavaOv(Family):
    """The published checkpoints' layout."""

    name = "llava_ov"
    model_class = LlavaOnevisionForConditionalGeneration
    channels = 3
    frames = MOMENTS
    compacts = True
    chat = Wrapping("<|im_start|>user ", "\n\n", "<|im_end|><|im_start|>assistant\n")
    habits = (
        Wrapping("<|im_start|>user\n", "\n\n", "<|im_end|>\n<|im_start|>assistant\n"),
        Wrapping(
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
            "\n\n",
            "<|im_end|>\n<|im_start|>assistant\n",
        ),
    )
    places = Places(np.arange(MOMENTS * CELLS)[None], MOMENTS * CELLS, newline=True)

    def build_processor(self) -> LlavaOnevisionProcessor:
        size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
        scale = [IMAGE_SIZE * i for i in range(1, 7)]
        return LlavaOnevisionProcessor(
            image_processor=LlavaOnevisionImageProcessor(
                size=size,
                image_grid_pinpoints=[[h, w] for h in scale for w in scale],
                image_mean=[0.5, 0.5, 0.5],
                image_std=[0.5, 0.5, 0.5],
            ),
            video_processor=LlavaOnevisionVideoProcessor(
                size=size, image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5]
            ),
            tokenizer=build_tokenizer(image_token="<image>", video_token="<video>"),
            num_image_tokens=(IMAGE_SIZE // PATCH_SIZE) ** 2,
            vision_feature_select_strategy="full",
            chat_template=CHAT_TEMPLATE,
        )

    def build_config(self, processor: LlavaOnevisionProcessor) -> LlavaOnevisionConfig:
        tokenizer = processor.tokenizer
        vision = SiglipVisionConfig(
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=IMAGE_SIZE,
            patch_size=PATCH_SIZE,
            vision_use_head=False,
        )
        return LlavaOnevisionConfig(  # type: ignore[call-arg]
            vision_config=vision,
            text_config=Qwen2Config(**text_settings(tokenizer)),
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            image_grid_pinpoints=processor.image_processor.image_grid_pinpoints,
            tie_word_embeddings=True,
            cacovid_frames=self.frames,  # how many frames the model was trained to read
        )

    def pixels(self, processor: LlavaOnevisionProcessor, frames: NDArray[np.uint8]) -> Tensor:
        return processor.video_processor(frames, return_tensors="pt")["pixel_values_videos"][0]

    def frame_tokens(self, model: Any, pixels: Tensor) -> Tensor:
        return model.model.get_video_features(pixels[:, None], return_dict=True).pooler_output[:, :CELLS]

    def sight(self, model: Any) -> dict[str, nn.Module]:
        return {"tower": model.model.vision_tower, "projector": model.model.multi_modal_projector}

    def last_layer(self, model: Any) -> tuple[nn.Module, str]:
        return model.model.multi_modal_projector, "linear_2"

    def beside(self, model: Any) -> dict[str, nn.Module]:
        return {"newline": nn.ParameterDict({"newline": model.model.image_newline})}


LLAVA_OV: Final = LlavaOv()

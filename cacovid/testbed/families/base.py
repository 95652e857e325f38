"""What differs between the families that a test bed is trained of; all else is the same world and the same stages."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLForConditionalGeneration,
)

from cacovid.testbed.scene import CELLS

VideoModel = LlavaOnevisionForConditionalGeneration | Qwen2_5_VLForConditionalGeneration

IMAGE_SIZE: Final = 80
PATCH_SIZE: Final = 8
WIDTH: Final = 128
"""Of the LLM."""


@dataclass(frozen=True)
class Wrapping:
    """The text around video and question: what comes before the video, behind it, and after the question."""

    head: str
    lead: str
    tail: str


@dataclass(frozen=True)
class Places:
    """Position ids from the head's end on, counted from there.

    video: (A, VIDEO_TOKENS), one id an axis; after: the id of what comes next; newline: whether the model puts a row of
    its own behind the video.
    """

    video: NDArray[np.int64]
    after: int
    newline: bool


class Family(ABC):
    """One model family at a size that two CPU cores can train: width 128, tower of 4 layers, LLM of 8."""

    name: ClassVar[str]  # as the backbone's
    model_class: ClassVar[Any]
    channels: ClassVar[int]  # of what the tower sees at one moment: 3 a frame
    frames: ClassVar[int]  # read from a video
    compacts: ClassVar[bool]  # whether kept tokens may stand at consecutive positions
    chat: ClassVar[Wrapping]  # as the processor's chat template has it; evaluations use this one
    habits: ClassVar[tuple[Wrapping, ...]]  # others, seen in training so that the model does not hang on one spelling
    places: ClassVar[Places]
    steps: ClassVar[dict[str, int]] = {}  # optimiser steps of stages that need others than `train.STEPS`

    @abstractmethod
    def build_processor(self) -> Any:
        """The processor: frames of 80 x 80 pixels, patches of 8, 25 tokens a moment."""

    @abstractmethod
    def build_config(self, processor: Any) -> Any:
        """The model's configuration."""

    def build_model(self, processor: Any, seed: int = 0) -> VideoModel:
        """An untrained model; the seed fixes its weights."""
        torch.manual_seed(seed)
        model = self.model_class(self.build_config(processor))
        model.generation_config = GenerationConfig(
            do_sample=False,
            eos_token_id=processor.tokenizer.eos_token_id,
            pad_token_id=processor.tokenizer.pad_token_id,
            max_new_tokens=16,
        )
        return model

    def load_model(self, folder: Path) -> VideoModel:
        """A checkpoint in float32."""
        return self.model_class.from_pretrained(folder, dtype=torch.float32).eval()

    @abstractmethod
    def pixels(self, processor: Any, frames: NDArray[np.uint8]) -> Tensor:
        """What the processor makes of a video (frames, H, W, 3): (MOMENTS, channels, 80, 80), normalised."""

    @abstractmethod
    def frame_tokens(self, model: Any, pixels: Tensor) -> Tensor:
        """Video tokens (n, CELLS, D) of single moments (n, channels, 80, 80)."""

    def video_tokens(self, model: Any, pixels: Tensor) -> Tensor:
        """Video tokens (V, VIDEO_TOKENS, D) of videos (V, MOMENTS, channels, 80, 80)."""
        return self.frame_tokens(model, pixels.flatten(0, 1)).reshape(len(pixels), pixels.shape[1] * CELLS, -1)

    @abstractmethod
    def sight(self, model: Any) -> dict[str, nn.Module]:
        """What makes video tokens of pixels, by name: modules that stage "sight" trains."""

    @abstractmethod
    def last_layer(self, model: Any) -> tuple[nn.Module, str]:
        """The module and the name in it of the linear layer that makes video tokens."""

    def beside(self, model: Any) -> dict[str, nn.Module]:
        """What is trained with the LLM and is none of its modules."""
        return {}


def text_settings(tokenizer: PreTrainedTokenizerFast, **rope: Any) -> dict[str, Any]:
    """The LLM's sizes: width 128, 8 layers, 4 query and 2 key heads."""
    return {
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "hidden_size": WIDTH,
        "intermediate_size": 384,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, **rope},
        "initializer_range": 0.05,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
